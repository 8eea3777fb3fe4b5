"""Segments made by hand, to be sent to a connection of the test's own."""

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from .netns import Netns

TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ, TCP_TIMESTAMP = 19, 20, 21, 24  # linux/tcp.h
RECEIVED, SENT = 1, 2
REPAIR_OFF_WITHOUT_PROBE = -1
FIN, SYN, RST, PSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10


@dataclass(frozen=True)
class Numbers:
    """The sequence numbers that a connection's end sends and expects next, and its clock (ms)."""

    seq: int
    ack: int
    clock: int


def numbers(end: socket.socket) -> Numbers:
    """Return an end's sequence numbers, as the kernel knows them."""
    end.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    try:
        found = []
        for queue in (SENT, RECEIVED):
            end.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_QUEUE, queue)
            found.append(end.getsockopt(socket.IPPROTO_TCP, TCP_QUEUE_SEQ) % 2**32)
        found.append(end.getsockopt(socket.IPPROTO_TCP, TCP_TIMESTAMP) % 2**32)
    finally:
        end.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, REPAIR_OFF_WITHOUT_PROBE)
    return Numbers(*found)


def timestamps(value: int) -> bytes:
    """Return the time stamp option (RFC 7323) with a value of the sender's clock."""
    return struct.pack(">BBBBII", 1, 1, 8, 10, value % 2**32, 0)


def segment(
    source: tuple[str, int],
    destination: tuple[str, int],
    seq: int,
    ack: int,
    flags: int,
    payload: bytes = b"",
    options: bytes = b"",
    wrong_by: int = 0,
    window: int = 1000,
) -> bytes:
    """Return a packet of IPv4 with a TCP segment; its checksum is wrong by so much."""
    ends = socket.inet_aton(source[0]) + socket.inet_aton(destination[0])
    length = 20 + len(options)
    header = struct.pack(
        ">HHIIBBHHH", source[1], destination[1], seq % 2**32, ack % 2**32, length // 4 << 4,
        flags, window, 0, 0,
    )  # fmt: skip
    body = header + options + payload
    pseudo = ends + struct.pack(">HH", socket.IPPROTO_TCP, len(body))
    sent = (checksum(pseudo + body) + wrong_by) % 2**16
    body = body[:16] + struct.pack(">H", sent) + body[18:]
    return struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 64, 6, 0) + ends + body


def checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@contextmanager
def raw_socket(netns: Netns) -> Iterator[socket.socket]:
    """Open a socket of a namespace that sends packets as they are."""
    with netns.entered():
        made = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    with made:
        yield made


@contextmanager
def receiving(netns: Netns) -> Iterator[socket.socket]:
    """Open a socket that receives a copy of each TCP segment that comes into a namespace."""
    with netns.entered():
        made = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
    made.settimeout(60)
    with made:
        yield made


def await_syn_ack(answers: socket.socket, port: int, to_port: int) -> int:
    """Return the sequence number of the next SYN-ACK from a port to another."""
    while True:
        packet = answers.recv(1 << 16)
        source, destination, seq, _, _, flags = struct.unpack(">HHIIBB", packet[20:34])
        if (source, destination) == (port, to_port) and flags & (SYN | ACK) == SYN | ACK:
            return int(seq)
