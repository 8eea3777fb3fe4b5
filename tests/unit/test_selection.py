"""Filters evaluated here choose what a plain reading of each event chooses."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address, ip_network
from pathlib import PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tcprism
from tcprism.errors import UnknownTarget, UsageError
from tcprism.events import Batch, Event
from tcprism.recording.selection import Selection

from .recordings import CONTEXT
from .records import messages, segments

ADDRESSES = ("10.1.2.3", "10.1.3.3", "192.0.2.1", "2001:db8::1", "2001:db8:1::1", "::a01:203")
PORTS = st.sampled_from([1, 22, 443, 8080, 65535])

ends = st.fixed_dictionaries(
    {
        "pid": st.sampled_from([0, 1, 7]),
        "comm": st.sampled_from([b"curl", b"nginx", b"fifteen-letters"]),
        "netns": st.sampled_from([0, 5, 9]),
        "cgroup_id": st.integers(0, 5),
        "family": st.sampled_from([4, 6]),
        "local_ip": st.sampled_from(ADDRESSES),
        "remote_ip": st.sampled_from(ADDRESSES),
        "local_port": PORTS,
        "remote_port": PORTS,
    }
)

networks = st.sampled_from(
    ["10.1.2.3", "10.1.2.0/23", "10.0.0.0/7", "0.0.0.0/0", "::/0", "2001:db8::/47", "192.0.2.1/31"]
)
filters = st.fixed_dictionaries(
    {},
    optional={
        "pid": st.lists(st.sampled_from([1, 7]), min_size=1),
        "comm": st.sampled_from(["curl", "fifteen-letters-and-more"]),
        "host": st.lists(networks, min_size=1, max_size=2),
        "remote_host": networks,
        "port": st.sampled_from(["22", "1-443", "8080,1"]),
        "local_port": st.sampled_from(["22", "443-65535"]),
        "remote_port": st.sampled_from([443, 1]),
        "netns": st.sampled_from([5, 9]),
        "cgroup": st.sampled_from(["/a", "/a/1", "a/2/", "/sys/fs/cgroup/a/4"]),
        "container": st.sampled_from(["box", "nobox"]),
        "family": st.sampled_from([4, 6]),
    },
)


def in_ranges(port: int, text: str | int) -> bool:
    ranges = [part.split("-") for part in str(text).split(",")]
    return any(int(each[0]) <= port <= int(each[-1]) for each in ranges)


def in_networks(address: str, texts: str | list[str]) -> bool:
    ip = ip_address(address)
    wanted = [ip_network(t, strict=False) for t in ([texts] if isinstance(texts, str) else texts)]
    return any(ip.version == network.version and ip in network for network in wanted)


def owned(event: Event, given: dict[str, object]) -> bool:
    path, inside = event.cgroup, False
    if "cgroup" in given and path:
        root = "/" + str(given["cgroup"]).removeprefix("/sys/fs/cgroup").strip("/")
        inside = PurePath(path).is_relative_to(root)
    return inside or ("container" in given and event.container == given["container"])


CHECKS: dict[str, Callable[[Event, object], bool]] = {
    "pid": lambda event, value: (event.pid or 0) in value,  # type: ignore[operator]
    "comm": lambda event, value: str(value)[:15] == event.comm,
    "host": lambda e, v: in_networks(e.local_ip, v) or in_networks(e.remote_ip, v),  # type: ignore[arg-type]
    "remote_host": lambda event, value: in_networks(event.remote_ip, str(value)),
    "port": lambda e, v: in_ranges(e.local_port, str(v)) or in_ranges(e.remote_port, str(v)),
    "local_port": lambda event, value: in_ranges(event.local_port, str(value)),
    "remote_port": lambda event, value: in_ranges(event.remote_port, str(value)),
    "netns": lambda event, value: event.netns == value,
    "family": lambda event, value: event.family == value,
}


@given(st.lists(ends, max_size=12), st.lists(ends, max_size=4), filters)
def test_as_read(sends: list[dict[str, object]], others: list[dict[str, object]],
                 given: dict[str, object]) -> None:  # fmt: skip
    """What passes is what passes all of the filter's fields, one event after the other."""
    named = [fields | {"pid": 1} if "comm" in given else fields for fields in sends + others]
    parts = [messages(*named[: len(sends)]), segments(*named[len(sends) :])]
    whole = Batch([type(p)(p.rows, p.payload, {}, CONTEXT) for p in parts if len(p)])
    chosen = Selection(tcprism.Filter(**given).recorded())(whole)  # type: ignore[arg-type]
    owner = {"cgroup", "container"} & given.keys()
    expected = [
        event
        for event in whole
        if all(CHECKS[name](event, value) for name, value in given.items() if name in CHECKS)
        and (not owner or owned(event, given))
    ]
    assert list(chosen) == expected


def test_kinds_and_payload() -> None:
    whole = Batch([messages({"payload": b"abcdef", "bytes": 9}), segments({})])
    (event,) = Selection(kinds=("send",), payload=4)(whole)
    assert (event.kind, event.payload, event.payload_truncated) == ("send", b"abcd", True)
    (event,) = Selection(kinds=("send",), payload=0)(whole)
    assert (event.payload, event.payload_truncated) == (None, False)
    assert [event.kind for event in Selection()(whole)] == ["send", "transmit"]


@pytest.mark.parametrize(
    "nonsense",
    [
        {"pid": 0},
        {"pid": "one"},
        {"comm": ""},
        {"host": "10.1.2"},
        {"port": 65536},
        {"port": "2-1"},
        {"remote_port": 0},
        {"netns": "lo"},
        {"family": 5},
    ],
)
def test_nonsense_is_refused_when_a_filter_is_used(nonsense: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        tcprism.Filter(**nonsense).recorded()  # type: ignore[arg-type]


def test_what_a_recording_cannot_tell() -> None:
    with pytest.raises(UsageError, match="who started whom"):
        tcprism.Filter(pid=1, follow=True).recorded()


def test_who_is_not_there_can_be_looked_for_in_a_recording_only() -> None:
    gone = tcprism.Filter(pid=4_000_000_000)
    assert gone.recorded().pids == (4_000_000_000,)
    with pytest.raises(UnknownTarget):
        gone.live()
