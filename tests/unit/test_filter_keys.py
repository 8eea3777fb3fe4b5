"""The keys and bits that the kernel is given to filter by."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tcprism import filter_texts
from tcprism.errors import UsageError
from tcprism.events._wire import CGROUPS_MAX, CONFIG, PID_ROWS, PIDS_A_ROW
from tcprism.filters import Criteria

MAPS = Path(__file__).resolve().parents[2] / "bpf/include/tcprism/maps.h"
NETWORK = ip_network("10.0.0.0/8")
CHOSEN = b"\1"
PIDS_END = 2**22  # PID_MAX_LIMIT on 64-bit kernels, include/linux/threads.h


@pytest.fixture
def comm() -> Iterator[Path]:
    """The file that names this process; the name is put back."""
    path = Path("/proc/self/comm")
    before = path.read_bytes()
    yield path
    path.write_bytes(before.rstrip(b"\n"))


@pytest.mark.parametrize(
    "name",
    ["x", "kworker/0:1", "fifteen bytes!!", "sixteen bytes!!!", "ééééééééé", "tab\tand space"],
)
def test_a_comm_is_kept_as_the_kernel_keeps_it(name: str, comm: Path) -> None:
    comm.write_bytes(name.encode())
    (key,) = Criteria(comms=(filter_texts.parse_comm(name),)).entries()["comms"]
    assert key == comm.read_bytes().removesuffix(b"\n").ljust(16, b"\0")


def test_a_comm_that_is_not_utf8() -> None:
    name = filter_texts.parse_comm(os.fsdecode(b"caf\xe9"))
    assert Criteria(comms=(name,)).entries()["comms"] == {b"caf\xe9".ljust(16, b"\0"): CHOSEN}


@pytest.mark.parametrize(
    ("text", "length", "family", "address"),
    [
        ("10.0.0.0/8", 136, 4, bytes(10) + b"\xff\xff\x0a\0\0\0"),
        ("0.0.0.0/0", 128, 4, bytes(10) + b"\xff\xff\0\0\0\0"),
        ("192.0.2.1", 160, 4, bytes(10) + b"\xff\xff\xc0\0\2\1"),
        ("::/0", 32, 6, bytes(16)),
        ("fe80::/10", 42, 6, b"\xfe\x80" + bytes(14)),
    ],
)
def test_keys_of_prefixes(text: str, length: int, family: int, address: bytes) -> None:
    network = filter_texts.parse_network(text)
    entries = Criteria(hosts=(network,), remote_hosts=(network, network)).entries()
    any_scope = bytes(4)
    key = length.to_bytes(4, "little") + family.to_bytes(4, "little") + address + any_scope
    assert entries["hosts"] == {key: CHOSEN}
    assert entries["remote_hosts"] == entries["hosts"]


def as_key(address: IPv4Address | IPv6Address) -> int:
    """Return what the kernel side looks up: the family, IPv4 as mapped IPv6, then the scope."""
    mapped = IPv6Address(f"::ffff:{address}") if isinstance(address, IPv4Address) else address
    scope = bytes([7, 0, 0, 0])
    return int.from_bytes(address.version.to_bytes(4, "little") + mapped.packed + scope, "big")


prefixes = st.one_of(
    st.builds(
        lambda ip, bits: IPv4Network((ip, bits), False), st.ip_addresses(v=4), st.integers(0, 32)
    ),
    st.builds(
        lambda ip, bits: IPv6Network((ip, bits), False), st.ip_addresses(v=6), st.integers(0, 128)
    ),
)


@settings(max_examples=60)
@given(prefixes, st.data())
def test_a_prefix_matches_its_addresses_and_no_other(
    network: IPv4Network | IPv6Network, data: st.DataObject
) -> None:
    """Look an address up as a longest-prefix trie does."""
    (key,) = Criteria(hosts=(network,)).entries()["hosts"]
    inside = data.draw(st.ip_addresses(network=network))
    outside = data.draw(
        st.ip_addresses(v=network.version).filter(lambda ip: ip not in network)
        if network.prefixlen
        else st.none()
    )
    ignored = 192 - int.from_bytes(key[:4], "little")
    prefix = int.from_bytes(key[4:], "big") >> ignored
    assert as_key(inside) >> ignored == prefix
    assert outside is None or as_key(outside) >> ignored != prefix


pids = st.lists(st.integers(1, 300) | st.integers(1, PIDS_END - 1), max_size=20)


@given(pids, pids)
def test_the_rows_of_pids_are_a_set(chosen: list[int], others: list[int]) -> None:
    """Ask as the kernel side does: row by row number, one byte a pid."""
    rows = Criteria(pids=tuple(chosen)).entries()["pids"]
    for pid in (*chosen, *others):
        row = rows.get((pid // PIDS_A_ROW).to_bytes(4, "little"), bytes(PIDS_A_ROW))
        assert row[pid % PIDS_A_ROW] == (pid in chosen)
    assert all(len(row) == PIDS_A_ROW for row in rows.values())
    assert sum(map(sum, rows.values())) == len(set(chosen))


def test_every_pid_has_a_row() -> None:
    assert PID_ROWS * PIDS_A_ROW == PIDS_END


sides = st.sampled_from(["port", "local_port", "remote_port"])
port = st.integers(1, 65535)
port_ranges = st.lists(st.tuples(port, port).map(lambda ends: (min(ends), max(ends))), max_size=5)


@settings(max_examples=40)
@given(sides, port_ranges, st.lists(port, max_size=20))
def test_the_bits_of_ports_are_a_set(
    side: str, ranges: list[tuple[int, int]], others: list[int]
) -> None:
    """Ask as the kernel side does: word by the upper bits, bit by the lower six."""
    chosen: dict[str, Any] = {f"{side}s": tuple(ranges)}
    switches = Criteria(**chosen).switches()
    words: Any = switches[side]
    expected = {number for low, high in ranges for number in range(low, high + 1)}
    edges = [number + step for ends in ranges for number in ends for step in (-1, 0, 1)]
    for number in [0, 65535, *others, *(edge for edge in edges if edge < 65536)]:
        assert int(words[number >> 6]) >> (number & 63) & 1 == (number in expected)
    assert int.from_bytes(words.tobytes()).bit_count() == len(expected)
    assert switches[f"by_{side}"] == bool(ranges)
    bounds = switches["lowest_port"], switches["highest_port"]
    own = expected if side != "remote_port" else set()  # a port that a socket may yet get
    assert bounds == (min(own, default=0), max(own, default=0))


def test_follow_needs_processes() -> None:
    with pytest.raises(UsageError, match="--follow"):
        Criteria(follow=True, comms=("sh",))
    assert Criteria(follow=True, pids=(1,)).follow


def test_no_more_cgroups_than_the_kernel_side_has_room_for() -> None:
    most = (Path("/"),) * CGROUPS_MAX
    assert Criteria(cgroups=most).switches()["cgroups"] == CGROUPS_MAX
    with pytest.raises(UsageError, match="at most"):
        Criteria(cgroups=(*most, Path("/")))


@pytest.mark.parametrize(
    ("chosen", "fields", "entries"),
    [
        ({}, [], 0),
        ({"pids": (1, 2, 64)}, ["by_pid"], 2),
        ({"comms": ("sh",)}, ["by_comm"], 1),
        ({"netns": (4026531840,)}, ["netns"], 1),
        ({"netns": (4026531840, 4026531841)}, ["by_netns"], 2),
        ({"hosts": (NETWORK,)}, ["by_host"], 1),
        ({"remote_hosts": (NETWORK,)}, ["by_remote_host"], 1),
        ({"ports": ((1, 2),)}, ["by_port", "lowest_port", "highest_port"], 0),
        ({"family": 6}, ["family"], 0),
    ],
)
def test_a_filter_turns_on_its_switch_alone(
    chosen: dict[str, Any], fields: list[str], entries: int
) -> None:
    """All names are those of struct config and of the maps."""
    asked = Criteria(**chosen)
    switches, maps = asked.switches(), asked.entries()
    assert CONFIG.names
    assert set(switches) <= set(CONFIG.names)
    plain = [name for name, value in switches.items() if not isinstance(value, np.ndarray)]
    assert [name for name in plain if switches[name]] == fields
    assert all(re.search(rf"\b{name}\b.*[;)]", MAPS.read_text()) for name in maps)
    assert sum(map(len, maps.values())) == entries
    assert list(maps["network_namespaces"]) == [
        inode.to_bytes(4, "little") for inode in asked.netns
    ]
