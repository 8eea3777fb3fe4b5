"""A capture by tcpdump, read here: the witness for what was on the wire."""

import secrets
import signal
import socket
import struct
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .netns import PATIENCE, Netns

ETHERNET = 14
FLAG_NAMES = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR")


@dataclass(frozen=True)
class Packet:
    """A captured TCP packet."""

    source_ip: str
    source_port: int
    destination_port: int
    seq: int
    ack: int
    flags: str
    window: int
    payload: bytes

    @property
    def end_seq(self) -> int:
        """The sequence number after the packet, SYN and FIN counted."""
        takes = len(self.payload) + ("SYN" in self.flags) + ("FIN" in self.flags)
        return (self.seq + takes) & 0xFFFFFFFF


def _network(frame: bytes) -> tuple[str, bytes] | None:
    """Return a frame's source address and what IP carries, if that is TCP."""
    kind = struct.unpack_from("!H", frame, 12)[0]
    if kind == 0x0800 and frame[ETHERNET + 9] == socket.IPPROTO_TCP:
        start = ETHERNET + (frame[ETHERNET] & 15) * 4
        end = ETHERNET + struct.unpack_from("!H", frame, ETHERNET + 2)[0]
        return socket.inet_ntop(socket.AF_INET, frame[26:30]), frame[start:end]
    if kind == 0x86DD and frame[ETHERNET + 6] == socket.IPPROTO_TCP:
        end = ETHERNET + 40 + struct.unpack_from("!H", frame, ETHERNET + 4)[0]
        return socket.inet_ntop(socket.AF_INET6, frame[22:38]), frame[ETHERNET + 40 : end]
    return None


def _packet(source_ip: str, data: bytes) -> Packet:
    source, destination, seq, ack, offset, bits, window = struct.unpack_from("!HHIIBBH", data)
    names = [name for bit, name in enumerate(FLAG_NAMES) if bits & 1 << bit]
    payload = data[(offset >> 4) * 4 :]
    return Packet(source_ip, source, destination, seq, ack, "|".join(names), window, payload)


def read_frame(frame: bytes) -> Packet | None:
    """Return the TCP packet in an Ethernet frame, or None."""
    found = _network(frame)
    return _packet(*found) if found else None


def read_packets(path: Path) -> list[Packet]:
    """Return the TCP packets of a classic pcap file of Ethernet frames."""
    data = path.read_bytes()
    packets, at = [], 24
    while at < len(data):
        captured = struct.unpack_from("=IIII", data, at)[2]
        if packet := read_frame(data[at + 16 : at + 16 + captured]):
            packets.append(packet)
        at += 16 + captured
    return packets


def _await_marker(path: Path, marker: bytes) -> None:
    """Wait until the capture has the packet that says that all others are in."""
    deadline = time.monotonic() + PATIENCE
    with path.open("rb") as file:
        tail = b""
        while marker not in (tail := tail[-len(marker) :] + file.read()):
            if time.monotonic() > deadline:
                raise TimeoutError("tcpdump did not see the end marker")
            time.sleep(0.01)


@contextmanager
def capturing(netns: Netns, device: str, path: Path, marker_to: str) -> Iterator[None]:
    """Capture TCP on a device of a namespace while the body runs.

    In the end a UDP packet goes to `marker_to`, a host behind the device. tcpdump's buffer has a
    place as long as the longest packet for each: the shorter that is, the more it can hold. On lo
    each packet takes two, as it leaves and as it arrives, of which the second is written.
    """
    longest, buffer = (65_549, 131_072) if device == "lo" else (1_600, 65_536)  # bytes, KiB
    command = ["tcpdump", "-i", device, f"-s{longest}", f"-B{buffer}", "-U", "--immediate-mode",
               "-Z", "root", "-w", str(path), "tcp or udp port 9"]  # fmt: skip
    process = subprocess.Popen(netns.command(*command), stderr=subprocess.PIPE, text=True)
    marker = secrets.token_bytes(16)
    assert process.stderr
    try:
        for line in process.stderr:
            if "listening on" in line:
                break
        yield
        with netns.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(marker, (marker_to, 9))
        _await_marker(path, marker)
        process.send_signal(signal.SIGINT)
        report = process.communicate(timeout=PATIENCE)[1]
        assert "\n0 packets dropped by kernel" in report, report
    finally:
        process.kill()
        process.wait()


def coverage(ranges: Iterable[tuple[int, int]]) -> Counter[int]:
    """Return how often sequence numbers are covered, as steps up and down.

    Ranges that tile another range give the same steps as that range.
    """
    steps: Counter[int] = Counter()
    for start, end in ranges:
        steps[start] += 1
        steps[end] -= 1
    return Counter({seq: step for seq, step in steps.items() if step})
