"""ICMP errors: a firewall's REJECT ends a connect, with the error that the program is told."""

import errno
import itertools
import select
import socket
from pathlib import Path

from tcprism.kernel.types import kernel_types
from tests.support.netns import Netns
from tests.support.tracer import Event, tracing
from tests.support.unseen import unseen

from .ways import await_true

PATIENCE = 60_000  # milliseconds
ESTABLISHED, SYN_SENT = b"\1", b"\2"  # the first byte of struct tcp_info
LOOPBACK = {4: "127.0.0.1", 6: "::1"}
REJECTIONS = {
    4: ("icmp type admin-prohibited", "icmp type host-unreachable", "icmp type port-unreachable"),
    6: ("icmpv6 type admin-prohibited", "icmpv6 type addr-unreachable"),
}
RULES = """
table inet wall {{
    chain {hook} {{
        type filter hook {hook} priority 0;
        tcp dport {port} {which} reject with {how}
    }}
}}
"""


def rejection(hook: str, port: int, how: str, which: str = "") -> str:
    """Return the rule of a firewall that rejects what goes to a port."""
    return RULES.format(hook=hook, port=port, which=which, how=how)


class Attempt:
    """A connect as event loops do it; many can be under way, for some take a second."""

    def __init__(self, netns: Netns, family: int, port: int) -> None:
        self._client = netns.socket(socket.AF_INET if family == 4 else socket.AF_INET6)
        self._client.setblocking(False)
        self._error = self._client.connect_ex((LOOPBACK[family], port))

    def result(self) -> str | None:
        """Return the name of the error that the kernel tells."""
        with self._client as client:
            if self._error == errno.EINPROGRESS:
                poll = select.poll()
                poll.register(client, select.POLLOUT)
                assert poll.poll(PATIENCE)
                self._error = client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return errno.errorcode.get(self._error)


def attempts(events: list[Event]) -> dict[int, str | None]:
    """Return by port the error of each connect."""
    return {event["remote_port"]: event["error"] for event in events if event["kind"] == "connect"}


def test_a_rejected_connect_has_the_programs_error(netns: Netns, tmp_path: Path) -> None:
    """Whether the error came while connect() held the socket or later, and read or not."""
    each = itertools.product(REJECTIONS, ("output", "input"))
    ways = [(family, hook, how) for family, hook in each for how in REJECTIONS[family]]
    rules = (rejection(hook, port, how) for port, (_, hook, how) in enumerate(ways, 9801))
    netns.run("nft", "".join(rules))
    with (
        unseen("inet_sock_set_state", "oldstate=TCP_SYN_SENT newstate=TCP_CLOSE") as hidden,
        tracing(tmp_path / "events", "--kinds", "connect", "--netns", netns.path) as tracer,
    ):
        tries = {port: Attempt(netns, way[0], port) for port, way in enumerate(ways, 9801)}
        told = {port: attempt.result() for port, attempt in tries.items()}
    for port in {port for port in told if any(f" dport={port} " in line for line in hidden)}:
        del told[port]
    assert None not in told.values()
    assert "EINPROGRESS" not in told.values()
    found = attempts(tracer.events)
    if not kernel_types().has_tracepoint("inet_sk_error_report"):  # 5.15 is the first that has it
        told = {port: error if found[port] else None for port, error in told.items()}
    assert found == told


def test_an_error_that_is_overcome_is_none(netns: Netns, tmp_path: Path) -> None:
    """The program is told of the firewall, waits, and the next SYN gets through."""
    with tracing(tmp_path / "events", "--kinds", "connect", "--netns", netns.path) as tracer:
        overcome = next(port for port in range(9850, 9870) if overcomes(netns, port))
    assert attempts(tracer.events)[overcome] is None


def overcomes(netns: Netns, port: int) -> bool:
    """Connect where the first SYN is rejected, and tell whether that was not the end.

    It is the end where another thread handles what comes over loopback (ksoftirqd), and connect()
    holds the socket no more.
    """
    with netns.socket() as listener, netns.socket() as client:
        listener.bind((LOOPBACK[4], port))
        listener.listen()
        # Only the first SYN: the next is sent after a second, and would be the end.
        rule = rejection("output", port, "icmp type host-unreachable", "numgen inc mod 1000 == 0")
        netns.run("nft", rule.replace("wall", f"wall{port}"))
        client.setblocking(False)
        assert client.connect_ex(listener.getsockname()) == errno.EINPROGRESS
        await_true(lambda: state(client) != SYN_SENT)
        return state(client) == ESTABLISHED


def state(end: socket.socket) -> bytes:
    return end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
