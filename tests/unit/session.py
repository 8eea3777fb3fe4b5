"""A recorded session for the screens: four connections and a listener, twenty seconds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tcprism.diagnosis.feeds import Recorded
from tcprism.events import Batch, Part
from tcprism.events._wire import EventKind, SegmentArrival
from tcprism.events.ledger import Ledger
from tcprism.events.names import CA_STATES, STATES, TcpFlag

from .records import losses, messages, segments, snapshots

SECOND = 1_000_000_000
START = 1000 * SECOND
LENGTH = 20
CLOCK_OFFSET = 1_767_225_600 * SECOND

CURL = {"pid": 812, "tid": 812, "comm": b"curl", "uid": 1000, "netns": 4_026_531_840}
NGINX = {"pid": 431, "tid": 431, "comm": b"nginx", "netns": 4_026_531_840}
BACKUP = {"pid": 977, "tid": 977, "comm": b"backup\x1b[31m", "netns": 4_026_531_840}
HTTPS = {
    "local_ip": "192.0.2.10", "local_port": 45_678, "remote_ip": "198.51.100.7", "remote_port": 443
}  # fmt: skip
WEB = {
    "local_ip": "192.0.2.10", "local_port": 80, "remote_ip": "203.0.113.9", "remote_port": 51_000
}  # fmt: skip
STORE = {
    "local_ip": "2001:db8::10", "local_port": 40_022, "remote_ip": "2001:db8::22",
    "remote_port": 22, "family": 6,
}  # fmt: skip
LISTENER = {"local_ip": "0.0.0.0", "local_port": 80}
ESTABLISHED, LISTEN = STATES.index("ESTABLISHED"), STATES.index("LISTEN")
BUFFERS = {"sndbuf": 87_040, "rcvbuf": 131_072, "mss": 1448, "congestion": b"cubic"}


def look(second: int) -> Part:
    """Return the snapshot of a second."""
    at = {"ts_ns": START + second * SECOND, **BUFFERS}
    up = {**at, "state": ESTABLISHED, "cwnd": 10 + second, "snd_wnd": 64_000, "rcv_wnd": 65_000}
    curl = {
        "inode": 11, "bytes_sent": 300 * second, "bytes_acked": 300 * second,
        "bytes_received": 200_000 * second,
        "srtt_us": 11_250 + 300 * (second % 5), "min_rtt_us": 11_000, "busy_us": 40_000 * second,
        "data_segs_out": 2 * second,
    }  # fmt: skip
    web = {
        "inode": 12, "bytes_sent": 900_000 * second, "bytes_acked": 900_000 * second,
        "srtt_us": 42_000, "min_rtt_us": 40_000,
        "busy_us": 990_000 * second, "rwnd_limited_us": 700_000 * second, "unsent": 64_000,
        "unacked": 64_000, "packets_out": 44, "data_segs_out": 620 * second,
    }  # fmt: skip
    backup = {
        "inode": 13, "bytes_sent": 150_000 * second, "bytes_acked": 144_000 * second,
        "bytes_retrans": 6_000 * second,
        "srtt_us": 180_000, "min_rtt_us": 90_000, "busy_us": 1_000_000 * second,
        "total_retrans": 4 * second, "data_segs_out": 104 * second, "unacked": 14_480,
        "packets_out": 10, "unsent": 64_000, "ca_state": CA_STATES.index("Recovery"),
    }  # fmt: skip
    return snapshots(
        {**at, **NGINX, **LISTENER, "inode": 10, "state": LISTEN, "backlog_limit": 511},
        {**up, **CURL, **HTTPS, **curl},
        {**up, **NGINX, **WEB, **web},
        {**up, **NGINX, "pid": 432, **WEB, **web},
        {**up, **BACKUP, **STORE, **backup},
    )


def talk(second: int) -> list[Part]:
    """Return the events of a second."""
    at = START + second * SECOND
    request = f"GET /{second} HTTP/1.1\r\nHost: example.org\r\n\r\n".encode()
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + bytes(range(32, 64))
    both = {**CURL, **HTTPS}
    sent: dict[str, Any] = {"kind": EventKind.SEND, "ts_ns": at + 1_000_000, "payload": request}
    received = {
        "kind": EventKind.RECV, "ts_ns": at + 20_000_000, "payload": answer, "bytes": 200_040
    }  # fmt: skip
    lost = {
        **BACKUP, **STORE, "ts_ns": at + 300_000_000, "kind": EventKind.RETRANSMIT, "seq": 1448,
        "end_seq": 2896, "bytes": 1448, "segs": 1, "cause": 2 - second % 2, "srtt_us": 180_000,
        "window": 502, "flags": 16,
    }  # fmt: skip
    left = {
        **both, "ts_ns": at + 900_000, "seq": 5, "end_seq": 5 + len(request), "segs": 1,
        "bytes": len(request), "window": 500, "flags": 24,
    }  # fmt: skip
    return [
        messages({**both, **sent}, {**both, **received}, payload_class=256),
        losses(lost),
        segments(left),
    ]


def recorded() -> Recorded:
    """Return the session as a feed."""
    batches = [
        Batch([look(second), *(talk(second) if second < LENGTH else [])], CLOCK_OFFSET)
        for second in range(LENGTH + 1)
    ]
    return Recorded(Session(batches), 1.0)


def closed_window() -> Recorded:
    """Return what nginx's peer said last: that it takes no more."""
    said = {
        "kind": EventKind.RECEIVE, "ts_ns": START + SECOND // 2, "window": 0,
        "arrival": SegmentArrival.IN_ORDER, "flags": TcpFlag.ACK, "segs": 1,
    }  # fmt: skip
    batches = [look(0), segments({**NGINX, **WEB, **said}), look(1), look(2)]
    return Recorded(Session([Batch([part], CLOCK_OFFSET) for part in batches]), 1.0)


@dataclass
class Session:
    """What stands for a recording."""

    recorded: list[Batch]
    ledger: Ledger = field(default_factory=lambda: Ledger(()))

    def batches(self) -> Iterator[Batch]:
        yield from self.recorded
