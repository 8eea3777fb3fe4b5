"""Segments as packets, against tcpdump, both as tshark reads them."""

from contextlib import closing
from pathlib import Path

import pytest

from tests.support import hooks
from tests.support.capture import capturing
from tests.support.conversation import hang_up, receive
from tests.support.netns import FIN_WAIT2, Netns
from tests.support.tracer import Tracer
from tests.support.tshark import fields
from tests.support.wire import Wire, lose_data, lose_flagged, wired

pytestmark = [
    pytest.mark.native,
    pytest.mark.skipif(
        hooks.segment_hooks() != ["tracepoint"], reason="fentry and kprobes see no SYN-ACK"
    ),
]
SYN_ACKS = "tcp.flags.syn == 1 && tcp.flags.ack == 1"
AGAIN = "tcp.analysis.retransmission"
HEADER = ("tcp.srcport", "tcp.seq_raw", "tcp.window_size_value", "tcp.options")


def handshakes(wire: Wire) -> None:
    """Make connections whose first SYN-ACKs are lost, by both families."""
    for number, times in enumerate((1, 2, 0)):
        wire.rule = lose_flagged("SYN|ACK", times)
        client, server = wire.connection(6 if number else 4, 5700 + number)
        with closing(client), closing(server):
            hang_up(client, server)


def test_a_syn_ack_is_one_packet_each_time(tmp_path: Path) -> None:
    """As many as tcpdump has, and as many of them sent again."""
    ours, theirs = tmp_path / "ours.pcapng", tmp_path / "theirs.pcap"
    with wired() as wire:
        arguments = ("--kinds", "transmit,retransmit", "--netns", wire.server.path)
        tracer = Tracer(ours, *arguments, written=("--format", "pcapng"))
        with closing(tracer), capturing(wire.server, "veth0", theirs, "10.77.0.1"):
            tracer.await_attached()
            handshakes(wire)
            assert tracer.stop() == 0
    for only in (SYN_ACKS, f"{SYN_ACKS} && {AGAIN}"):
        packets = [sorted(fields(path, *HEADER, only=only)) for path in (ours, theirs)]
        assert packets[0] == packets[1]
    assert len(fields(theirs, "tcp.srcport", only=f"{SYN_ACKS} && {AGAIN}")) >= 3


WHAT = ("tcp.srcport", "tcp.dstport", "tcp.seq_raw", "tcp.ack_raw", "tcp.flags", "tcp.len")


def test_answers_for_no_socket_are_there_where_both_ends_are(netns: Netns, tmp_path: Path) -> None:
    """The last ACK is of a socket in TIME_WAIT; what is sent to nobody, a reset answers."""
    ours, theirs = tmp_path / "ours.pcapng", tmp_path / "theirs.pcap"
    tracer = Tracer(ours, "--netns", netns.path, written=("--format", "pcapng"))
    with closing(tracer), capturing(netns, "lo", theirs, "127.0.0.1"):
        tracer.await_attached()
        for orderly in (True, False):
            with netns.socket() as listener, netns.socket() as client:
                listener.bind(("127.0.0.1", 0))
                listener.listen()
                client.connect(listener.getsockname())
                with listener.accept()[0] as server:
                    client.sendall(b"hello")
                    receive(server, 5)
                    client.close()
                    netns.await_state(FIN_WAIT2)  # from now on it is no full socket
                    if not orderly:
                        server.sendall(b"too late")
                netns.await_closed()
        assert tracer.stop() == 0
    packets = [sorted(fields(path, *WHAT, only="tcp")) for path in (ours, theirs)]
    assert packets[0] == packets[1]
    assert len(fields(theirs, "tcp.seq_raw", only="tcp.flags.reset == 1")) == 1


ITEMS = 6
LOST = 3
QUESTION = b"GET /item/%d HTTP/1.1\r\nHost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


def ask(wire: Wire) -> None:
    """Make requests on one connection; the first segment of one of them is lost."""
    wire.rule = lose_data(LOST)
    client, server = wire.connection(4, 5711)
    with closing(client), closing(server):
        for number in range(ITEMS):
            request = QUESTION % number
            client.sendall(request)
            receive(server, len(request))
            server.sendall(OK)
            receive(client, len(OK))
        hang_up(client, server)


def comments(path: Path, only: str, *names: str) -> list[list[str]]:
    """Return what comments say of requests, behind the process, and some fields."""
    rows = fields(path, "frame.comment", *names, only=f"tcp.len > 0 && {only}")
    return [[row[0].partition(", ")[2], *row[1:]] for row in rows]


def test_comments_name_the_requests_and_what_is_repeated_of_them(tmp_path: Path) -> None:
    """In the order in which the client made them; tshark reads the same paths off the messages."""
    kinds = ("--kinds", "send,recv,transmit,retransmit", "--port", "5711", "--payload", "4096")
    made = {name: tmp_path / f"{name}.pcapng" for name in ("segments", "messages")}
    with wired() as wire:
        tracers = [
            Tracer(path, *kinds, "--packets", name, written=("--format", "pcapng"))
            for name, path in made.items()
        ]
        with closing(tracers[0]), closing(tracers[1]):
            for tracer in tracers:
                tracer.await_attached()
            ask(wire)
            assert [tracer.stop() for tracer in tracers] == [0, 0]
    names = [f"http GET /item/{number} (request {number + 1})" for number in range(ITEMS)]
    responses = [[f"the response to {name}: 200"] for name in names]
    asked = comments(made["segments"], "tcp.dstport == 5711", "tcp.seq")
    repeated = [row for row in asked if "repeats" in row[0]]
    assert [row[0] for row in asked if row not in repeated] == names
    length = len(QUESTION % LOST)
    numbers = [(int(seq) - 1) // length for _, seq in repeated]
    assert LOST in numbers
    for (text, _), number in zip(repeated, numbers, strict=True):  # a slow machine repeats others
        assert text.startswith("cause ")
        assert text.endswith(f", repeats bytes 0-{length - 1} of {names[number]}")
    said = comments(made["segments"], "tcp.srcport == 5711")
    assert [row for row in said if "repeats" not in row[0]] == responses
    read = comments(made["messages"], "tcp.dstport == 5711", "http.request.uri")
    assert read == [[name, f"/item/{number}"] for number, name in enumerate(names)]
    assert comments(made["messages"], "tcp.srcport == 5711") == responses
