"""Translated addresses: an event has its socket's ends, whatever NAT writes into packets.

The truth: what getsockname() and getpeername() say.
"""

from contextlib import closing
from pathlib import Path

import pytest

from tests.support.conversation import hang_up, receive
from tests.support.netns import Netns
from tests.support.tracer import Event, tracing

pytestmark = pytest.mark.native

SERVICE = ("10.96.0.1", 443)
PORT = 9202
KINDS = "connect,accept,send,recv,transmit,retransmit,drop"
# As a Kubernetes service: connections to it go to a server here, from another port. The first
# packet with data is thrown away after it has been translated.
RULES = f"""
table ip service {{
    chain output {{
        type nat hook output priority -100;
        ip daddr {SERVICE[0]} tcp dport {SERVICE[1]} dnat to 127.0.0.1:{PORT}
    }}
    chain source {{
        type nat hook postrouting priority 100;
        tcp dport {PORT} snat to 127.0.0.1:40000-40009
    }}
    chain after {{
        type filter hook postrouting priority 200;
        tcp dport {PORT} meta length > 500 limit rate 1/hour burst 1 packets drop
    }}
}}
"""

# The first SYN-ACK, after it has been sent and translated.
LOST_SYNACK = """
table ip lost {
    chain input {
        type filter hook input priority 0;
        tcp flags & (syn | ack) == syn | ack limit rate 1/hour burst 1 packets drop
    }
}
"""

Ends = tuple[str, int, str, int]


def converse(netns: Netns) -> tuple[Ends, Ends]:
    """Have a connection by way of the service; return how its two sockets see it."""
    with netns.socket() as listener, netns.socket() as client:
        listener.bind(("", PORT))
        listener.listen()
        client.connect(SERVICE)
        server, _ = listener.accept()
        with closing(server):
            client.sendall(b"q" * 1000)
            receive(server, 1000)
            server.sendall(b"answer")
            receive(client, 6)
            ends = tuple((*end.getsockname(), *end.getpeername()) for end in (client, server))
            hang_up(client, server)
    netns.await_closed()
    return ends[0], ends[1]


def ends_of(event: Event) -> Ends:
    return (event["local_ip"], event["local_port"], event["remote_ip"], event["remote_port"])


@pytest.fixture
def translated(netns: Netns) -> Netns:
    """A namespace with a service that is somewhere else."""
    netns.run("ip", "route", "add", "10.96.0.0/16", "dev", "lo", "src", "127.0.0.1")
    netns.run("nft", RULES)
    return netns


def test_events_have_their_sockets_ends(translated: Netns, tmp_path: Path) -> None:
    """Each event has the ends of one of the two sockets, a SYN-ACK those that it will have."""
    with tracing(tmp_path / "events", "--kinds", KINDS, "--netns", translated.path) as tracer:
        client, server = converse(translated)
    assert client[2:] == SERVICE
    assert 40000 <= server[3] <= 40009
    events = tracer.events
    assert {ends_of(event) for event in events} == {client, server}
    (answer,) = (event for event in events if event.get("flags") == "SYN|ACK")
    assert ends_of(answer) == server
    (dropped,) = (event for event in events if event["kind"] == "drop")
    assert (ends_of(dropped), dropped["outgoing"], dropped["bytes"]) == (client, True, 1000)


def test_a_repeated_synack_is_no_transmit(translated: Netns, tmp_path: Path) -> None:
    """It is a retransmission alone, as the kernel counts it (RetransSegs)."""
    translated.run("nft", LOST_SYNACK)
    with tracing(tmp_path / "events", "--kinds", KINDS, "--netns", translated.path) as tracer:
        converse(translated)
        counted = translated.tcp_counters()["RetransSegs"]
    synacks = [event["kind"] for event in tracer.events if event.get("flags") == "SYN|ACK"]
    assert synacks.count("transmit") == 1
    assert synacks.count("retransmit") >= 1
    repeated = [event for event in tracer.events if event["kind"] == "retransmit"]
    assert sum(event["segs"] for event in repeated) == counted


def test_port_chooses_by_the_sockets_ends(translated: Netns, tmp_path: Path) -> None:
    """`--port` of the service shows what the client sends, and nothing of the server."""
    with tracing(
        tmp_path / "events", "--kinds", KINDS, "--netns", translated.path, "--port", "443"
    ) as tracer:
        client, _ = converse(translated)
    assert {ends_of(event) for event in tracer.events} == {client}
    flags = {event["flags"] for event in tracer.events if event["kind"] == "transmit"}
    assert {"SYN", "ACK", "PSH|ACK", "FIN|ACK"} <= flags
