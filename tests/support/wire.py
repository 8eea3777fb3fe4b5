"""A wire between two network namespaces that loses and delays each packet as a test says."""

import ctypes
import fcntl
import heapq
import itertools
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from .capture import Packet, read_frame
from .netns import SIOCETHTOOL, Netns, Pair, addresses, namespace
from .segments import checksum

ETH_P_ALL = 3
PACKET_OUTGOING = 4
ETHTOOL_STXCSUM = 0x17
SO_RCVBUFFORCE = 33  # asm-generic/socket.h
ROOM = 1 << 24  # bytes that may wait for the wire's thread: what the kernel drops is not in `lost`

Rule = Callable[[Packet, bool], float | None]
"""What becomes of a packet, told whether it goes to the server: seconds of delay, None: lost."""


def deliver(_packet: Packet, _to_server: bool) -> float | None:
    """Let everything pass at once."""
    return 0.0


def lose_data(nth: int, times: int = 1) -> Rule:
    """Lose the nth data segment to the server, counted from 0, so many times."""
    known: list[int] = []
    left = [times]

    def rule(packet: Packet, to_server: bool) -> float | None:
        if not to_server or not packet.payload:
            return 0.0
        if packet.seq not in known:
            known.append(packet.seq)
        if known.index(packet.seq) == nth and left[0]:
            left[0] -= 1
            return None
        return 0.0

    return rule


def lose_flagged(flags: str, times: int = 1) -> Rule:
    """Lose the first packets with exactly these flags."""
    left = [times]

    def rule(packet: Packet, _to_server: bool) -> float | None:
        if packet.flags == flags and left[0]:
            left[0] -= 1
            return None
        return 0.0

    return rule


def lose_all(packet: Packet, to_server: bool) -> float | None:
    """Lose all data to the server."""
    return None if to_server and packet.payload else 0.0


def lose_answers(_packet: Packet, to_server: bool) -> float | None:
    """Lose all that the server sends."""
    return 0.0 if to_server else None


def hold_answers(seconds: float) -> Rule:
    """Have the server's packets take their time."""
    return lambda _packet, to_server: 0.0 if to_server else seconds


def congested(frame: bytes) -> bytes:
    """Return a frame with the mark of congestion (CE, RFC 3168), if its sender knows ECN."""
    marked = bytearray(frame)
    if frame[12:14] == b"\x86\xdd" and frame[15] & 0x30:
        marked[15] |= 0x30
    elif frame[12:14] == b"\x08\x00" and frame[15] & 3:
        marked[15] |= 3
        marked[24:26] = b"\0\0"
        marked[24:26] = struct.pack("!H", checksum(bytes(marked[14:34])))
    return bytes(marked)


@dataclass
class Wire(Pair):
    """Two namespaces and the thread between them. `rule` may be changed at any time.

    So may `congested`: whether packets are marked with that.
    """

    middle: Netns
    rule: Rule = deliver
    congested: bool = False
    lost: list[Packet] = field(default_factory=list)
    passed: list[Packet] = field(default_factory=list)

    @contextmanager
    def running(self) -> Iterator["Wire"]:
        """Carry packets while the body runs."""
        stop_out, stop_in = os.pipe()
        ends = [self._open("to-client"), self._open("to-server")]
        thread = threading.Thread(target=self._carry, args=(ends, stop_out))
        thread.start()
        try:
            yield self
        finally:
            os.close(stop_in)
            thread.join()
            os.close(stop_out)
            for end in ends:
                end.close()

    def _open(self, device: str) -> socket.socket:
        with self.middle.entered():
            made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, ROOM)
        made.bind((device, ETH_P_ALL))
        return made

    def _carry(self, ends: list[socket.socket], stop: int) -> None:
        waiting: list[tuple[float, int, socket.socket, bytes]] = []
        order = itertools.count()
        while True:
            patience = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
            watched: list[Any] = [*ends, stop]
            ready = select.select(watched, [], [], patience)[0]
            if stop in ready:
                return
            for end in ready:
                frame, address = end.recvfrom(1 << 16)
                delay = (
                    None if address[2] == PACKET_OUTGOING else self._judge(frame, end is ends[0])
                )
                if self.congested:
                    frame = congested(frame)
                if delay is not None:
                    other = ends[1] if end is ends[0] else ends[0]
                    heapq.heappush(waiting, (time.monotonic() + delay, next(order), other, frame))
            while waiting and waiting[0][0] <= time.monotonic():
                _, _, other, frame = heapq.heappop(waiting)
                other.send(frame)

    def _judge(self, frame: bytes, to_server: bool) -> float | None:
        packet = read_frame(frame)
        if packet is None:
            return 0.0
        delay = self.rule(packet, to_server)
        (self.lost if delay is None else self.passed).append(packet)
        return delay


def _checksums_by_software(netns: Netns, device: str) -> None:
    """Have checksums made before a packet leaves: a copy of it is all that the wire has."""
    with netns.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        value = ctypes.create_string_buffer(struct.pack("II", ETHTOOL_STXCSUM, 0))
        request = struct.pack("16sP", device.encode(), ctypes.addressof(value)).ljust(40)
        fcntl.ioctl(control, SIOCETHTOOL, request)


@contextmanager
def wired() -> Iterator[Wire]:
    """Make two namespaces with addresses as in `joined()`, and the wire between them."""
    with namespace() as client, namespace() as middle, namespace() as server:
        for number, (end, device) in enumerate(((client, "to-client"), (server, "to-server")), 1):
            middle.ip(
                f"link add {device} type veth peer name veth0 netns {end.name}",
                f"link set {device} up",
            )
            end.offload_off("veth0")
            _checksums_by_software(end, "veth0")
            end.ip(*addresses(number))
            end.configure("net/ipv4/tcp_congestion_control", "reno")  # every kernel has it
            end.configure("net/ipv4/tcp_no_metrics_save", "1")  # each connection begins anew
        with Wire(client, server, middle).running() as wire:
            yield wire
