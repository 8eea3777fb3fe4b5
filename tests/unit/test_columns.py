"""What each public column says, unknown things included."""

import errno
from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from tcprism.events import COLUMNS, KINDS, Event
from tcprism.events import _wire as wire
from tcprism.events.columns import BY_NAME, columns_of

from .records import messages, segments

# The keys as the issue that asked for them lists them; they are stable.
EVENT_KEYS = [
    *("time", "ts_ns", "kind", "pid", "tid", "comm", "uid", "cgroup_id", "netns", "socket"),
    *("family", "local_ip", "local_port", "remote_ip", "remote_port", "bytes", "error", "flags"),
]
MESSAGE_KEYS = [
    *("requested", "duration_ns", "seq", "payload", "payload_text"),
    *("payload_truncated", "payload_unavailable"),
]
SEGMENT_KEYS = [
    *("seq", "end_seq", "ack", "window", "segs", "cwnd", "srtt_us", "packets_out", "ca_state"),
]


def values(name: str, part: Any) -> list[Any]:
    return BY_NAME[name].to_list(part)


def test_keys() -> None:
    assert [column.name for column in columns_of("message")] == EVENT_KEYS + MESSAGE_KEYS
    assert [column.name for column in columns_of("segment")] == EVENT_KEYS + SEGMENT_KEYS


def test_event_has_an_attribute_for_each_column() -> None:
    assert [field.name for field in fields(Event)] == [column.name for column in COLUMNS]


def test_every_column_is_explained() -> None:
    assert [column.name for column in COLUMNS if len(column.doc) < 10] == []


def test_kinds() -> None:
    assert KINDS == ("send", "recv", "transmit", "retransmit")
    assert values("kind", segments({"kind": 2}, {"kind": 3})) == ["transmit", "retransmit"]


def test_owner_is_null_when_unknown() -> None:
    known = {"pid": 7, "tid": 8, "uid": 0, "cgroup_id": 9, "comm": b"sh"}
    part = segments(known, {"comm": b"stale", "uid": 5})
    expected: dict[str, Any] = {"pid": 7, "tid": 8, "uid": 0, "cgroup_id": 9, "comm": "sh"}
    for name, value in expected.items():
        assert values(name, part) == [value, None], name


@pytest.mark.parametrize(
    ("comm", "shown"),
    [
        (b"nginx", "nginx"),
        (b"a\x1b[31m", "a\\x1b[31m"),
        (b"back\\slash", "back\\\\slash"),
        (b"sh\0leftover", "sh"),
        (b"exactly-16-bytes", "exactly-16-bytes"),
    ],
)
def test_comm(comm: bytes, shown: str) -> None:
    assert values("comm", segments({"pid": 1, "comm": comm})) == [shown]


@pytest.mark.parametrize(
    ("name", "unknown", "known"),
    [
        ("socket", 0, 2**64 - 1),
        ("netns", 0, 4026531840),
        ("requested", wire.REQUESTED_UNKNOWN, 0),
        ("duration_ns", wire.DURATION_UNKNOWN, 0),
        ("window", wire.WINDOW_UNKNOWN, 0),
        ("cwnd", 0, 10),
        ("srtt_us", wire.MICROSECONDS_UNKNOWN, 0),
    ],
)
def test_sentinels_are_null(name: str, unknown: int, known: int) -> None:
    make = messages if "message" in BY_NAME[name].families else segments
    assert values(name, make({name: unknown}, {name: known})) == [None, known]


def test_addresses() -> None:
    part = segments(
        {"local_ip": "192.0.2.1", "remote_ip": "255.255.255.255"},
        {"family": 6, "local_ip": "2001:db8::1", "remote_ip": "::"},
    )
    assert values("local_ip", part) == ["192.0.2.1", "2001:db8::1"]
    assert values("remote_ip", part) == ["255.255.255.255", "::"]


@pytest.mark.parametrize(
    ("flags", "shown"),
    [
        (0, None),
        (0x02, "SYN"),
        (0x12, "SYN|ACK"),
        (0x18, "PSH|ACK"),
        (0x11, "FIN|ACK"),
        (0xC2, "SYN|ECE|CWR"),
        (0x1FF, "FIN|SYN|RST|PSH|ACK|URG|ECE|CWR|AE"),
        (0x210, "ACK|0x200"),
    ],
)
def test_segment_flags(flags: int, shown: str | None) -> None:
    assert values("flags", segments({"flags": flags})) == [shown]


def test_message_flags_and_unknown_seq() -> None:
    peek, zerocopy, unknown = wire.MessageFlag
    part = messages(
        {"flags": 0, "seq": 5},
        {"flags": peek | zerocopy, "seq": 6},
        {"flags": unknown, "seq": 7},
        {"flags": unknown | peek, "seq": 8},
    )
    assert values("flags", part) == [None, "PEEK|ZEROCOPY", None, "PEEK"]
    assert values("seq", part) == [5, 6, None, None]


def test_seq_of_a_segment_is_always_known() -> None:
    assert values("seq", segments({"seq": 1, "flags": 0x8010})) == [1]


def test_errors_are_named_whatever_their_sign() -> None:
    part = messages(
        {"error": errno.ECONNRESET},
        {"error": -errno.EPIPE},
        {"error": 0},
        {"error": -512},
        {"error": 4000},
    )
    assert values("error", part) == ["ECONNRESET", "EPIPE", None, "ERESTARTSYS", "4000"]


def test_congestion_states() -> None:
    part = segments(*({"ca_state": state} for state in (0, 1, 2, 3, 4, 0xFF)))
    assert values("ca_state", part) == ["Open", "Disorder", "CWR", "Recovery", "Loss", None]


def test_payload() -> None:
    part = messages(
        {"payload": b"all of it"},
        {"payload": b"the first", "bytes": 100},
        {"bytes": 100, "payload_unavailable": wire.PayloadReason.SPLICED},
        {"bytes": 0},
        {"payload_length": 1000, "bytes": 1000},
    )
    old_bytes = b"\xa5" * 64
    assert values("payload", part) == [b"all of it", b"the first", None, None, old_bytes]
    assert values("payload_text", part)[:4] == ["all of it", "the first", None, None]
    assert values("payload_truncated", part) == [False, True, False, False, True]
    assert values("payload_unavailable", part) == [None, None, "spliced", None, None]


def test_payload_reasons_are_those_of_the_documentation() -> None:
    part = messages(*({"payload_unavailable": reason} for reason in wire.PayloadReason))
    named = "spliced, kernel, io_uring, fault, discarded, syscall"
    assert values("payload_unavailable", part) == [None, *named.split(", ")]
    assert named in wire.DOCS["message.payload_unavailable"]


def test_columns_of_the_other_family_are_null() -> None:
    assert values("ack", messages({}, {})) == [None, None]
    assert values("payload", segments({})) == [None]
    assert BY_NAME["ack"].mask(messages({}, {})).tolist() == [True, True]


def test_numbers_keep_their_width() -> None:
    assert BY_NAME["ts_ns"].values(segments({})).dtype == np.uint64
