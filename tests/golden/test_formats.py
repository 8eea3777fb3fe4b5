"""Records laid out byte by byte, as bpf/include/tcprism/events.h says, and what becomes of them."""

import io
import struct
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest

from tcprism.events import Batch, Part
from tcprism.events._wire import MESSAGE, SEGMENT
from tcprism.sinks import Sink
from tcprism.sinks.json_lines import JsonLines
from tcprism.sinks.text import Text

HERE = Path(__file__).parent
PAYLOAD_CLASS = 64
CLOCK_OFFSET_NS = 1_767_225_600_000_000_000  # 2026-01-01T00:00:00Z

# struct event: ts_ns socket cgroup_id, pid tid uid netns, comm, local_ip remote_ip,
# local_port remote_port, kind family, flags, bytes seq, error, padding
EVENT = "<QQQ IIII 16s 16s 16s HH BB H II i 4x"
# struct message: requested, padding, duration_ns, payload_length, payload_unavailable, reserved
MESSAGE_END = "<I 4x Q I B 3x"
# struct segment: end_seq ack window cwnd srtt_us packets_out, segs, ca_state, reserved
SEGMENT_END = "<IIIIII H B 5x"

SEND, RECV, TRANSMIT, RETRANSMIT = range(4)
UNKNOWN_32 = 0xFFFFFFFF
UNKNOWN_64 = 0xFFFFFFFFFFFFFFFF

CURL = (4711, 5123, 2841, 2842, 1000, 4026531840, b"curl")
NGINX = (4712, 0x1234567890ABCDEF, 900, 900, 33, 4026532200, b"nginx: \x1b]0;hi")
NOBODY = (0, 0, 0, 0, 0, 0, b"")

IPV4 = (4, "192.0.2.10", 45678, "198.51.100.7", 80)
IPV6 = (6, "2001:db8::10", 443, "2001:db8::dead:beef", 50000)

Who = tuple[int, int, int, int, int, int, bytes]
Where = tuple[int, str, int, str, int]


def event(
    ts_ns: int,
    kind: int,
    who: Who,
    where: Where,
    size: int,
    seq: int,
    flags: int = 0,
    error: int = 0,
) -> bytes:
    socket, cgroup_id, pid, tid, uid, netns, comm = who
    family, local_ip, local_port, remote_ip, remote_port = where
    return struct.pack(
        EVENT,
        *(ts_ns, socket, cgroup_id, pid, tid, uid, netns, comm),
        *(address(local_ip), address(remote_ip), local_port, remote_port),
        *(kind, family, flags, size, seq, error),
    )


def address(text: str) -> bytes:
    ip = ip_address(text)
    return ip.packed if ip.version == 6 else bytes(10) + b"\xff\xff" + ip.packed


def message(
    head: bytes, requested: int, duration_ns: int, payload: bytes = b"", unavailable: int = 0
) -> bytes:
    end = struct.pack(MESSAGE_END, requested, duration_ns, len(payload), unavailable)
    return head + end + payload.ljust(PAYLOAD_CLASS, b"\xee")  # what the ring held before


def segment(head: bytes, *end: int) -> bytes:
    return head + struct.pack(SEGMENT_END, *end)


REQUEST = b'GET /a?b="c" HTTP/1.1\r\nHost: example.org\r\n\r\n'
LONG = bytes(range(64))
ODD = b"\\x41\xc3\xa9\x7f \n!"

MESSAGES = [
    message(event(1_000_000_001, SEND, CURL, IPV4, 44, 4_294_967_290), 44, 18_214, REQUEST),
    message(event(1_000_500_000, RECV, CURL, IPV4, 1448, 77, flags=1), 8192, UNKNOWN_64, LONG),
    message(event(1_000_600_000, RECV, CURL, IPV4, 0, 77, error=-104), 8192, 250_000_000),
    message(event(1_002_000_000, SEND, NGINX, IPV6, 9, 5, flags=0x8002), 20, 1_000, ODD),
    message(event(1_002_000_001, SEND, NGINX, IPV6, 65536, 14), UNKNOWN_32, 5_000, b"", 1),
]  # fmt: skip
SEGMENTS = [
    segment(event(1_000_100_000, TRANSMIT, CURL, IPV4, 44, 4_294_967_290, flags=0x18),
            38, 1_912_345_679, 502, 10, 11_250, 0, 1, 0),
    segment(event(1_212_000_000, RETRANSMIT, CURL, IPV4, 2896, 38, flags=0x10),
            2934, 1_912_345_679, 502, 1, 11_250, 2, 2, 4),
    segment(event(1_300_000_000, RETRANSMIT, NOBODY, IPV6, 0, 999, flags=0x12, error=-113),
            1000, 1, UNKNOWN_32, 0, UNKNOWN_32, 0, 1, 0xFF),
]  # fmt: skip


@pytest.fixture
def batch() -> Batch:
    raw = np.frombuffer(b"".join(MESSAGES), np.uint8).reshape(len(MESSAGES), -1)
    rows = raw[:, : MESSAGE.itemsize].copy().view(MESSAGE)[:, 0]
    return Batch(
        [
            Part(rows, raw[:, MESSAGE.itemsize :]),
            Part(np.frombuffer(b"".join(SEGMENTS), SEGMENT)),
        ],
        CLOCK_OFFSET_NS,
    )


@pytest.fixture(autouse=True)
def india(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Local time is UTC+5:30, so that nobody takes it for UTC."""
    monkeypatch.setenv("TZ", "IST-5:30")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


SINKS: dict[str, Callable[[BinaryIO], Sink]] = {
    "events.jsonl": JsonLines,
    "events.txt": lambda file: Text(file, color=False),
    "events-color.txt": lambda file: Text(file, color=True),
    "events-hex.txt": lambda file: Text(file, color=False, style="hex"),
    "events-none.txt": lambda file: Text(file, color=False, style="none"),
}


@pytest.mark.parametrize("name", SINKS)
def test_format(name: str, batch: Batch) -> None:
    file = io.BytesIO()
    sink = SINKS[name](file)
    sink.write(batch)
    sink.close()
    assert file.getvalue().decode("ascii") == (HERE / name).read_text()
