"""The options that choose what is traced."""

from __future__ import annotations

import os
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from tcprism.cli import options, trace_options
from tcprism.errors import UnknownTarget, UsageError
from tcprism.events import KINDS
from tcprism.events.kinds import NAMED_KINDS
from tcprism.filters import Criteria
from tcprism.sources.request import Request

SELF = os.getpid()


def chosen(*arguments: str, command_pid: int | None = None) -> Criteria:
    """Return the filter that a command line chooses."""
    made: list[Criteria] = []

    @click.command()
    @options.filter_options
    @click.option("--other", default="kept")
    def command(**given: Any) -> None:
        made.append(options.to_filter(given, command_pid))
        assert given == {"other": "kept"}

    result = CliRunner().invoke(command, arguments, standalone_mode=False)
    if result.exception:
        raise result.exception
    (only,) = made
    return only


def test_no_option_lets_all_pass() -> None:
    assert chosen() == Criteria()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--pid", f"{SELF},1", "--pids", "1"), Criteria(pids=(SELF, 1, 1))),
        (("--pid", "1", "--follow"), Criteria(pids=(1,), follow=True)),
        (("--comm", "nginx", "--comm", "a b"), Criteria(comms=("nginx", "a b"))),
        (("--host", "10.0.0.1/8"), Criteria(hosts=(ip_network("10.0.0.0/8"),))),
        (("--remote-host", "::1"), Criteria(remote_hosts=(ip_network("::1"),))),
        (("--port", "80,443", "--port", "1-9"), Criteria(ports=((80, 80), (443, 443), (1, 9)))),
        (("--local-port", "22"), Criteria(local_ports=((22, 22),))),
        (("--remote-port", "22"), Criteria(remote_ports=((22, 22),))),
        (("--netns", str(SELF)), Criteria(netns=(os.stat("/proc/self/ns/net").st_ino,))),
        (("--family", "4"), Criteria(family=4)),
        (("--family", "6"), Criteria(family=6)),
    ],
)
def test_each_option_sets_its_field(arguments: tuple[str, ...], expected: Criteria) -> None:
    assert chosen(*arguments) == expected


def test_options_are_taken_together() -> None:
    assert chosen("--port", "1", "--family", "4", "--comm", "x") == Criteria(
        ports=((1, 1),), family=4, comms=("x",)
    )


def test_a_command_is_followed() -> None:
    assert chosen(command_pid=42) == Criteria(pids=(42,), follow=True)
    assert chosen("--pid", "1", command_pid=42) == Criteria(pids=(1, 42), follow=True)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("--follow",), UsageError),
        (("--pid", "x"), UsageError),
        (("--comm", ""), UsageError),
        (("--host", "nobody"), UsageError),
        (("--remote-host", "nobody"), UsageError),
        (("--port", "0"), UsageError),
        (("--local-port", "0"), UsageError),
        (("--remote-port", "0"), UsageError),
        (("--cgroup", "/no/such/group"), UnknownTarget),
        (("--netns", "no such namespace"), UnknownTarget),
        (("--family", "5"), click.UsageError),
        (("--port",), click.UsageError),
    ],
)
def test_refusals(arguments: tuple[str, ...], error: type[Exception]) -> None:
    with pytest.raises(error):
        chosen(*arguments)


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("all", tuple(kind for kind in KINDS if kind not in NAMED_KINDS)),
        ("send", ("send",)),
        ("send,all", tuple(kind for kind in KINDS if kind not in NAMED_KINDS)),
        ("all, receive", tuple(k for k in KINDS if k == "receive" or k not in NAMED_KINDS)),
        ("retransmit, send,send", ("send", "retransmit")),
        (",".join(reversed(KINDS)), KINDS),
    ],
)
def test_kinds(text: str, kinds: tuple[str, ...]) -> None:
    assert options.parse_kinds(text) == kinds


@pytest.mark.parametrize("text", ["", "sent", "SEND", "send,", "send,all,sent"])
def test_no_kind(text: str) -> None:
    with pytest.raises(UsageError, match=r"is not a kind; choose from send, recv, .*, or all"):
        options.parse_kinds(text)


@pytest.mark.parametrize("value", [0, 1, 16384])
def test_payload(value: int) -> None:
    assert options.parse_payload(value) == value


@pytest.mark.parametrize("value", [-1, 16385])
def test_no_payload(value: int) -> None:
    with pytest.raises(UsageError, match="between 0 and 16384"):
        options.parse_payload(value)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("64K", 65536),
        ("65536", 65536),
        ("1G", 2**30),
        ("1024M", 2**30),
        ("64m", 2**26),
        ("64MB", 2**26),
        ("64MiB", 2**26),
        (" 128M ", 2**27),
        ("96K", 96 << 10),
    ],
)
def test_ring_sizes(text: str, size: int) -> None:
    assert trace_options.parse_ring_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "M", "0", "32K", "2G", "65535", "64 M", "64T", "-64M", "1.5M", "6\u0664K"]
)
def test_no_ring_size(text: str) -> None:
    with pytest.raises(UsageError, match="is not a size from 64K to 1G"):
        trace_options.parse_ring_size(text)


@given(st.integers(0, 2**31))
def test_ring_sizes_are_within_bounds(size: int) -> None:
    if 65536 <= size <= 2**30:
        assert trace_options.parse_ring_size(str(size)) == size
        return
    with pytest.raises(UsageError):
        trace_options.parse_ring_size(str(size))


def test_output() -> None:
    assert options.parse_output(None) is None
    assert options.parse_output("-") is None
    assert options.parse_output("./-") == Path("./-")


def test_options_of_headers_need_a_hook_that_sees_packets() -> None:
    assert Request(options=True, mechanism="tracepoint").options
    with pytest.raises(UsageError, match="--hooks fentry sees no TCP options"):
        Request(options=True, mechanism="fentry")
