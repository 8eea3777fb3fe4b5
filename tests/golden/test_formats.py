"""Records laid out byte by byte, as bpf/include/tcprism/events.h says, and what becomes of them."""

import io
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest

from tcprism.events import FAMILIES, KINDS, Batch, Part
from tcprism.events.context import Context, Owner
from tcprism.events.kinds import RECORDS
from tcprism.sinks import Sink
from tcprism.sinks.json_lines import JsonLines
from tcprism.sinks.text import Text

HERE = Path(__file__).parent
PAYLOAD_CLASS = 64
CLOCK_OFFSET_NS = 1_767_225_600_000_000_000  # 2026-01-01T00:00:00Z

# struct event: ts_ns socket cgroup_id, pid tid uid netns, comm, local_ip remote_ip,
# local_port remote_port, kind owner_source family, sampling, flags, padding, bytes seq, error,
# scope_id, padding
EVENT = "<QQQ IIII 16s 16s 16s HH BBB x H 2x II i I 4x"
# struct message: requested unread_us, duration_ns, payload_length, payload_unavailable, reserved
MESSAGE_END = "<II Q I B 3x"
# struct tls_message: session, duration_ns, stream_offset, requested encrypted_bytes payload_length
# missed_bytes, payload_unavailable socket_source, reserved
TLS_END = "<QQQ IIII BB 6x"
# struct delivery: send_ts_ns, unsent_us unacked_us
DELIVERY_END = "<Q II"
# struct segment: end_seq ack window cwnd srtt_us packets_out, segs, ca_state cause arrival,
# options_length, gso_size, payload_length, reserved
SEGMENT_END = "<IIIIII H BBB x 2x I 4x"
# struct loss: rto_us rttvar_us ssthresh sacked_out lost_out retrans_out undone reason call_seq,
# icsk_retransmits outgoing call_seq_known, reserved
LOSS_END = "<IIIIIIIII BBB x"
# struct connection_event: elapsed_ns, reset_reason, old_state new_state ending sent, iss irs
CONNECTION_END = "<Q I BBBB II"
# struct translation: translated_local_ip translated_remote_ip, translated_local_port
# translated_remote_port, reserved
TRANSLATION_END = "<16s 16s HH 4x"
# struct totals: bytes_sent bytes_acked bytes_received bytes_retrans delivery_rate busy_us
# rwnd_limited_us sndbuf_limited_us, segs_out segs_in data_segs_out data_segs_in total_retrans
# dsack_dups reord_seen min_rtt_us srtt_us cwnd, congestion
TOTALS = "<QQQQQQQQ IIIIIIIIII 16s"

SEND, RECV, ACKED, TRANSMIT, PROBE, RECEIVE, RETRANSMIT, UNDO, DROP = range(9)
CONNECT, ACCEPT, CLOSE, RESET, STATE, TLS_SEND, TLS_RECV, TRANSLATE = range(9, 17)
UNKNOWN_32 = 0xFFFFFFFF
UNKNOWN_64 = 0xFFFFFFFFFFFFFFFF

CURL = (4711, 5123, 2841, 2842, 1000, 4026531840, b"curl", 1)
CURLS_SOCKET = (*CURL[:-1], 2)
NGINX = (4712, 0x1234567890ABCDEF, 900, 900, 33, 4026532200, b"nginx: \x1b]0;hi", 3)
NO_SOCKET = (0, *CURL[1:5], 0, *CURL[6:])
NOBODY = (0, 0, 0, 0, 0, 0, b"", 0)

IPV4 = (4, "192.0.2.10", 45678, "198.51.100.7", 80)
NOWHERE = (0, "::", 0, "::", 0)
IPV6 = (6, "2001:db8::10", 443, "2001:db8::dead:beef", 50000)

Who = tuple[int, int, int, int, int, int, bytes, int]
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
    socket, cgroup_id, pid, tid, uid, netns, comm, owner_source = who
    family, local_ip, local_port, remote_ip, remote_port = where
    return struct.pack(
        EVENT,
        *(ts_ns, socket, cgroup_id, pid, tid, uid, netns, comm),
        *(address(local_ip), address(remote_ip), local_port, remote_port),
        *(kind, owner_source, family, flags, size, seq, error, 0),
    )


def address(text: str) -> bytes:
    ip = ip_address(text)
    return ip.packed if ip.version == 6 else bytes(10) + b"\xff\xff" + ip.packed


def message(
    head: bytes,
    requested: int,
    unread_us: int,
    duration_ns: int,
    payload: bytes = b"",
    unavailable: int = 0,
) -> bytes:
    end = struct.pack(MESSAGE_END, requested, unread_us, duration_ns, len(payload), unavailable)
    return head + end + payload.ljust(PAYLOAD_CLASS, b"\xee")  # what the ring held before


def tls(
    head: bytes, session: int, duration_ns: int, offset: int, requested: int, encrypted: int,
    missed: int, source: int, payload: bytes,
) -> bytes:  # fmt: skip
    end = (session, duration_ns, offset, requested, encrypted, len(payload), missed, 0, source)
    return head + struct.pack(TLS_END, *end) + payload.ljust(PAYLOAD_CLASS, b"\xee")


def delivery(head: bytes, *end: int) -> bytes:
    return head + struct.pack(DELIVERY_END, *end)


def segment(
    head: bytes, *end: int, cause: int = 0, arrival: int = 0, payload: bytes = b""
) -> bytes:
    made = head + struct.pack(SEGMENT_END, *end, cause, arrival, len(payload))
    return made + payload.ljust(PAYLOAD_CLASS, b"\xee") if payload else made


def loss(segment: bytes, *end: int) -> bytes:
    return segment + struct.pack(LOSS_END, *end)


def connection(
    head: bytes, end: tuple[int, ...], totals: tuple[int | bytes, ...], iss: int = 0, irs: int = 0
) -> bytes:
    return head + struct.pack(CONNECTION_END, *end, iss, irs) + struct.pack(TOTALS, *totals)


def translation(head: bytes, local_ip: str, local_port: int, remote_ip: str, port: int) -> bytes:
    ends = (address(local_ip), address(remote_ip), local_port, port)
    return head + struct.pack(TRANSLATION_END, *ends)


REQUEST = b'GET /a?b="c" HTTP/1.1\r\nHost: example.org\r\n\r\n'
LONG = bytes(range(64))
ODD = b"\\x41\xc3\xa9\x7f \n!"

MESSAGES = [
    message(event(1_000_000_001, SEND, CURL, IPV4, 44, 4_294_967_290), 44, UNKNOWN_32, 18_214,
            REQUEST),
    message(event(1_000_500_000, RECV, CURL, IPV4, 1448, 77, flags=1), 8192, 3_215, UNKNOWN_64,
            LONG),
    message(event(1_000_600_000, RECV, CURL, IPV4, 0, 77, error=-104), 8192, UNKNOWN_32,
            250_000_000),
    message(event(1_002_000_000, SEND, NGINX, IPV6, 9, 5, flags=0x8002), 20, UNKNOWN_32, 1_000,
            ODD),
    message(event(1_002_000_001, SEND, NGINX, IPV6, 65536, 14), UNKNOWN_32, UNKNOWN_32, 5_000,
            b"", 1),
]  # fmt: skip
TLS = [
    tls(event(1_490_000_000, TLS_SEND, CURL, IPV4, 44, 4_294_967_290), 0x55D0C0FFEE00, 21_000,
        0, 44, 66, 0, 1, REQUEST),
    tls(event(1_490_100_000, TLS_RECV, CURL, IPV4, 9, 0, flags=0x8000), 0x55D0C0FFEE00, 900,
        1448, 20, 0, 222, 2, ODD),
    tls(event(1_490_200_000, TLS_SEND, NO_SOCKET, NOWHERE, 65536, 0, flags=0x8000), 0x7F0000001000,
        5_000, 0, 70_000, 0, UNKNOWN_32, 0, LONG),
]  # fmt: skip
DELIVERIES = [
    delivery(event(1_040_100_000, ACKED, CURLS_SOCKET, IPV4, 44, 4_294_967_290),
             1_000_000_001, 12, 40_088),
    delivery(event(1_041_000_000, ACKED, NOBODY, IPV6, 9, 5), 1_002_000_000, 0, UNKNOWN_32),
    delivery(event(1_042_000_000, ACKED, NGINX, IPV6, 9, 14), 1_002_000_001, UNKNOWN_32, 999_600),
]  # fmt: skip
SEGMENTS = [
    segment(event(1_000_100_000, TRANSMIT, CURL, IPV4, 44, 4_294_967_290, flags=0x18),
            38, 1_912_345_679, 502, 10, 11_250, 0, 1, 0),
    segment(event(1_100_000_000, PROBE, CURLS_SOCKET, IPV4, 0, 37, flags=0x10),
            37, 1_912_345_679, 502, 10, 11_250, 0, 1, 0),
    segment(event(1_150_000_000, TRANSMIT, CURLS_SOCKET, IPV4, 1448, 38, flags=0x10),
            1486, 1_912_345_679, 502, 10, 11_250, 10, 1, 0, cause=3),
    segment(event(1_160_000_000, RECEIVE, CURLS_SOCKET, IPV4, 2896, 1_912_345_679, flags=0x10),
            1_912_348_575, 38, 502, 10, 11_250, 1, 2, 0, arrival=1),
    segment(event(1_170_000_000, RECEIVE, CURLS_SOCKET, IPV4, 0, 1_912_348_575, flags=0x10),
            1_912_348_575, 38, 502, 10, 11_250, 1, 1, 0, arrival=5),
]  # fmt: skip
SEGMENTS_WITH_PAYLOAD = [
    segment(event(1_180_000_000, TRANSMIT, CURL, IPV4, 44, 4_294_967_290, flags=0x18),
            38, 1_912_345_679, 502, 10, 11_250, 0, 1, 0, payload=REQUEST),
    segment(event(1_190_000_000, RECEIVE, CURLS_SOCKET, IPV4, 2896, 1_912_345_679, flags=0x10),
            1_912_348_575, 38, 502, 10, 11_250, 1, 2, 0, arrival=2, payload=LONG),
]  # fmt: skip
NO_EVIDENCE = (UNKNOWN_32, UNKNOWN_32, 0, 0, 0, 0)
LOSSES = [
    loss(segment(event(1_212_000_000, RETRANSMIT, CURLS_SOCKET, IPV4, 2896, 38, flags=0x10),
                 2934, 1_912_345_679, 502, 1, 11_250, 2, 2, 4, cause=1),
         204_000, 1_500, 7, 1, 2, 0, 0, UNKNOWN_32, 2934, 1, 0, 1),
    loss(segment(event(1_212_100_000, RETRANSMIT, CURLS_SOCKET, IPV4, 1448, 2934, flags=0x18),
                 4382, 1_912_345_679, 502, 1, 11_250, 2, 1, 3, cause=2),
         204_000, 1_500, 0x7FFFFFFF, 3, 1, 1, 0, UNKNOWN_32, 2934, 0, 0, 1),
    loss(segment(event(1_212_200_000, RETRANSMIT, CURLS_SOCKET, IPV4, 100, 4382, flags=0x18),
                 4482, 1_912_345_679, 502, 1, 11_250, 2, 1, 0, cause=3),
         204_000, 1_500, 7, 0, 0, 0, 0, UNKNOWN_32, 0, 0, 0, 0),
    loss(segment(event(1_300_000_000, RETRANSMIT, NOBODY, IPV6, 0, 999, flags=0x12, error=-113),
                 1000, 1, UNKNOWN_32, 0, UNKNOWN_32, 0, 1, 0xFF, cause=5),
         *NO_EVIDENCE, 0, UNKNOWN_32, 0, 0, 0, 0),
    loss(segment(event(1_310_000_000, UNDO, CURLS_SOCKET, IPV4, 4344, 38),
                 4382, 1_912_345_679, UNKNOWN_32, 5, 11_250, 2, 0, 4),
         204_000, 1_500, 7, 1, 2, 0, 2, UNKNOWN_32, 0, 1, 0, 0),
    loss(segment(event(1_320_000_000, DROP, CURLS_SOCKET, IPV4, 1448, 38, flags=0x10),
                 1486, 1_912_345_679, 502, 10, 11_250, 2, 1, 0),
         204_000, 1_500, 7, 0, 0, 0, 0, 6, 0, 0, 1, 0),
    loss(segment(event(1_330_000_000, DROP, NOBODY, IPV6, 0, 999, flags=0x02),
                 1000, 0, 64_240, 0, UNKNOWN_32, 0, 1, 0xFF),
         *NO_EVIDENCE, 0, UNKNOWN_32, 0, 0, 0, 0),
]  # fmt: skip
NO_TOTALS = (0, 0, 0, 0, UNKNOWN_64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, UNKNOWN_32, UNKNOWN_32, 0, b"")
TOTALS_OF_A_DOWNLOAD = (
    *(1_234_567, 1_230_001, 987, 4_344, 12_500_000, 1_100_000, 40_000, 0),
    *(910, 455, 900, 3, 3, 1, 2, 1_004, 1_234, 10, b"cubic"),
)
NO_ANSWER = (*NO_TOTALS[:8], 3, 0, 0, 0, 2, *NO_TOTALS[13:])
CONNECTIONS = [
    connection(event(1_400_000_000, CONNECT, CURL, IPV4, 0, 0), (1_204_000, UNKNOWN_32, 2, 1, 0, 0),
               (*NO_TOTALS[:8], 2, 1, *NO_TOTALS[10:])),
    connection(event(1_410_000_000, CONNECT, CURL, IPV4, 0, 0, error=-110),
               (3_100_000_000, UNKNOWN_32, 2, 7, 0, 0), NO_ANSWER),
    connection(event(1_420_000_000, CONNECT, CURL, IPV4, 0, 0, error=111),
               (UNKNOWN_64, UNKNOWN_32, 2, 7, 0, 0), (*NO_TOTALS[:8], 1, 1, *NO_TOTALS[10:])),
    connection(event(1_430_000_000, ACCEPT, NGINX, IPV6, 0, 0),
               (UNKNOWN_64, UNKNOWN_32, 3, 1, 0, 0), NO_TOTALS),
    connection(event(1_440_000_000, CLOSE, CURLS_SOCKET, IPV4, 0, 0),
               (12_345_678_901, UNKNOWN_32, 9, 7, 1, 0), TOTALS_OF_A_DOWNLOAD, 37, 1_912_345_678),
    connection(event(1_450_000_000, CLOSE, NOBODY, IPV6, 0, 0, error=-104),
               (UNKNOWN_64, UNKNOWN_32, 1, 7, 3, 0), NO_TOTALS),
    connection(event(1_460_000_000, RESET, CURLS_SOCKET, IPV4, 0, 0),
               (UNKNOWN_64, 16, 1, 7, 0, 1), NO_TOTALS),
    connection(event(1_470_000_000, RESET, NGINX, IPV6, 0, 0), (UNKNOWN_64, UNKNOWN_32, 1, 0, 0, 0),
               NO_TOTALS),
    connection(event(1_480_000_000, STATE, CURLS_SOCKET, IPV4, 0, 0),
               (UNKNOWN_64, UNKNOWN_32, 1, 4, 0, 0), NO_TOTALS),
]  # fmt: skip

TRANSLATIONS = [
    translation(event(1_495_000_000, TRANSLATE, CURLS_SOCKET, IPV4, 0, 0),
                "203.0.113.5", 41_001, "10.1.2.3", 8443),
    translation(event(1_495_100_000, TRANSLATE, NOBODY, IPV6, 0, 0),
                "2001:db8::10", 80, "2001:db8::dead:beef", 50_000),
]  # fmt: skip

# What stages add, and what this machine's numbers mean.
MESSAGES_OF_LOSSES: dict[str, list[int | str | None]] = {
    "attempt": [2, 3, None, 4, None, None, None],
    "duplicate_acks": [None, 3, None, None, None, None, None],
    "sack_blocks": [None, "4382:5830, 7278:8726", None, None, None, None, None],
    "duplicate_ack_first_ts_ns": [None, 1_212_000_000, None, None, None, None, None],
    "duplicate_ack_last_ts_ns": [None, 1_212_085_000, None, None, None, None, None],
    "message_pid": [2841, 2841, None, None, None, None, None],
    "message_comm": ["curl", "curl", None, None, None, None, None],
    "message_ts_ns": [1_000_000_001, None, None, None, None, None, None],
    "message_offset": [44, 1448, None, None, None, None, None],
    "message_bytes": [5000, None, None, None, None, None, None],
    "message_text": [
        *('POST /pay?b="c" HTTP/1.1\\x0d\\x0aHost: example.org', None),
        *(None, None, None, None, None),
    ],
}
CURLS_CGROUP = Owner("/user.slice/curl.scope", unit="curl.scope")
NGINX_CGROUP = Owner("/kubepods/pod1/c0ffee", "c0ffee", "pod1", container="web")
CONTEXT = Context(
    {5123: CURLS_CGROUP, 0x1234567890ABCDEF: NGINX_CGROUP, 0: Owner()}.__getitem__,
    {6: "NETFILTER_DROP"}.get,
    {16: "TCP_ABORT_ON_CLOSE"}.get,
)


def derived(values: list[int | str | None]) -> "np.ma.MaskedArray[Any, Any]":
    numbers = all(isinstance(value, int | None) for value in values)
    filled = [0 if value is None else value for value in values]
    return np.ma.MaskedArray(
        np.array(filled, np.int64 if numbers else object), [value is None for value in values]
    )


def part(family: str, records: list[bytes]) -> Part:
    return Part(np.frombuffer(b"".join(records), RECORDS[family]), context=CONTEXT)


def part_with_payload(family: str, records: list[bytes]) -> Part:
    raw = np.frombuffer(b"".join(records), np.uint8).reshape(len(records), -1)
    size = RECORDS[family].itemsize
    return replace(part(family, [raw[:, :size].tobytes()]), payload=raw[:, size:])


@pytest.fixture
def batch() -> Batch:
    losses = part("loss", LOSSES)
    parts = [
        part_with_payload("message", MESSAGES),
        part("delivery", DELIVERIES),
        part("segment", SEGMENTS),
        part_with_payload("segment", SEGMENTS_WITH_PAYLOAD),
        losses.derive(**{name: derived(values) for name, values in MESSAGES_OF_LOSSES.items()}),
        part("connection", CONNECTIONS),
        part_with_payload("tls", TLS),
        part("translation", TRANSLATIONS),
    ]
    return Batch(parts, CLOCK_OFFSET_NS)


def test_every_kind_of_event_is_here(batch: Batch) -> None:
    assert set(batch["kind"]) == set(KINDS)
    assert list(dict.fromkeys(part.family for part in batch.parts)) == list(FAMILIES)


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
