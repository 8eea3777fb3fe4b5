"""TCP Fast Open: a connection that the kernel gives away before its handshake is done.

The truth: PassiveOpens, what accept() returns, and the segments that a raw socket receives.
"""

import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests.support import segments
from tests.support.netns import Netns, Pair
from tests.support.segments import ACK, RST, SYN
from tests.support.tracer import Tracer, tracing

from .ways import await_true

pytestmark = pytest.mark.native

PORT = 9600
FORGED = range(41001, 41005)
CLIENT, SERVER = "10.77.0.1", "10.77.0.2"
WITHOUT_COOKIES = str(1 | 2 | 0x200 | 0x400)  # tcp_fastopen of Documentation/networking/ip-sysctl
ISN = 1000
TCP_FASTOPEN = 23
QUIET = f"""
table inet quiet {{
    chain out {{
        type filter hook output priority 0;
        tcp sport {FORGED.start}-{FORGED.stop} tcp flags & (rst | ack) == rst drop
    }}
}}
"""  # the client's kernel knows nothing of what is sent in its name


class Stranger:
    """Sends segments in the name of a client that knows Fast Open."""

    def __init__(self, raw: socket.socket, answers: socket.socket) -> None:
        self._raw, self._answers = raw, answers

    def send(self, port: int, seq: int, ack: int, flags: int, payload: bytes = b"") -> None:
        packet = segments.segment((CLIENT, port), (SERVER, PORT), seq, ack, flags, payload)
        self._raw.sendto(packet, (SERVER, 0))

    def await_data(self, seq: int) -> None:
        """Wait for the segment whose payload starts at a sequence number."""
        while True:
            packet = self._answers.recv(1 << 16)
            header = 20 + (packet[32] >> 4) * 4
            if struct.unpack_from(">I", packet, 24)[0] == seq and len(packet) > header:
                return

    def open(self, port: int, payload: bytes) -> int:
        """Send data with the SYN; return the sequence number of the answer."""
        option = bytes([34, 2, 1, 1])  # asks for Fast Open (RFC 7413)
        packet = segments.segment((CLIENT, port), (SERVER, PORT), ISN, 0, SYN, payload, option)
        self._raw.sendto(packet, (SERVER, 0))
        return segments.await_syn_ack(self._answers, PORT, port)


def listener(netns: Netns) -> socket.socket:
    made = netns.socket()
    made.bind((SERVER, PORT))
    made.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN, 16)
    made.listen()
    return made


def reset_before_its_end(stranger: Stranger, listening: socket.socket, port: int) -> None:
    isn = stranger.open(port, b"hi")
    accepted, _ = listening.accept()
    with accepted:
        assert accepted.recv(9) == b"hi"
        stranger.send(port, ISN + 3, isn + 1, RST | ACK)
        with pytest.raises(ConnectionResetError):
            accepted.recv(9)


def closed_before_its_end(stranger: Stranger, listening: socket.socket, port: int) -> None:
    isn = stranger.open(port, b"hi")
    accepted, _ = listening.accept()
    with accepted:
        assert accepted.recv(9) == b"hi"
    stranger.send(port, ISN + 3, isn + 1, RST | ACK)


def completed(stranger: Stranger, listening: socket.socket, port: int) -> None:
    isn = stranger.open(port, b"hi")
    accepted, _ = listening.accept()
    with accepted:
        stranger.send(port, ISN + 3, isn + 1, ACK)
        accepted.sendall(b"ho")
        assert accepted.recv(9) == b"hi"
    stranger.send(port, ISN + 3, isn + 4, RST | ACK)


def never_accepted(stranger: Stranger, listening: socket.socket, port: int) -> None:
    stranger.open(port, b"hi")
    listening.close()


ENDS: tuple[Callable[[Stranger, socket.socket, int], None], ...] = (
    reset_before_its_end,
    closed_before_its_end,
    completed,
    never_accepted,
)


def test_each_has_its_events(pair: Pair, tmp_path: Path) -> None:
    """An accept for each that PassiveOpens counts, a close, and the SYN-ACK that was sent."""
    pair.server.configure("net/ipv4/tcp_fastopen", WITHOUT_COOKIES)
    pair.client.run("nft", QUIET)
    before = pair.server.tcp_counters()["PassiveOpens"]
    with (
        tracing(
            tmp_path / "events", "--kinds", "accept,close,transmit", "--netns", pair.server.path
        ) as tracer,
        closing(listener(pair.server)) as listening,
        segments.raw_socket(pair.client) as raw,
        segments.receiving(pair.client) as answers,
    ):
        stranger = Stranger(raw, answers)
        for port, end in zip(FORGED, ENDS, strict=True):
            end(stranger, listening, port)
        pair.server.await_closed()
        opened = pair.server.tcp_counters()["PassiveOpens"] - before
    assert opened == len(FORGED)
    found = Counter((event["kind"], event["remote_port"]) for event in tracer.events)
    answered = Counter(e["remote_port"] for e in tracer.events if e.get("flags") == "SYN|ACK")
    for port in FORGED:
        assert (found["accept", port], found["close", port], answered[port]) == (1, 1, 1), port
    accepted = {e["remote_port"]: e["pid"] for e in tracer.events if e["kind"] == "accept"}
    assert None not in accepted.values()


def test_a_send_from_before_the_end_of_the_handshake(pair: Pair, tmp_path: Path) -> None:
    """It has not returned when its first byte is sent again: its offset is right, or unknown."""
    port, size = FORGED.start, 1 << 20
    pair.server.configure("net/ipv4/tcp_fastopen", WITHOUT_COOKIES)
    pair.client.run("nft", QUIET)
    with (
        tracing(
            tmp_path / "events", "--kinds", "send,retransmit", "--netns", pair.server.path
        ) as tracer,
        closing(listener(pair.server)) as listening,
        segments.raw_socket(pair.client) as raw,
        segments.receiving(pair.client) as answers,
    ):
        stranger = Stranger(raw, answers)
        first = stranger.open(port, b"hi") + 1
        accepted, _ = listening.accept()
        with accepted:
            accepted.settimeout(None)
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
            sender = threading.Thread(target=send_until_reset, args=(accepted, size))
            sender.start()
            stranger.await_data(first)
            stranger.send(port, ISN + 3, first, ACK)
            await_true(lambda: bool(offsets_of(tracer, first)))
            stranger.send(port, ISN + 3, first, RST | ACK)
            sender.join()
    assert {*offsets_of(tracer, first)} <= {0, None}


def offsets_of(tracer: Tracer, seq: int) -> list[int | None]:
    """Return what has been told of the retransmissions of the bytes from `seq` on."""
    again = [e for e in tracer.events if e["kind"] == "retransmit" and e["seq"] == seq]
    return [event["message_offset"] for event in again if event["bytes"]]


def send_until_reset(end: socket.socket, size: int) -> None:
    with suppress(ConnectionResetError):
        end.sendall(bytes(size))
