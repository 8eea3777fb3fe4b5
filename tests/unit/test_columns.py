"""What each public column says, unknown things included."""

import errno
from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from tcprism.events import COLUMNS, FAMILIES, KINDS, Event, Part, tcp_options
from tcprism.events import _wire as wire
from tcprism.events.columns import BY_NAME, columns_of
from tcprism.events.context import Context, Owner

from .records import MAKERS, connections, efforts, losses, messages, requests, segments, snapshots

# The keys as the issue that asked for them lists them; they are stable.
EVENT_KEYS = [
    *("time", "ts_ns", "kind", "pid", "tid", "comm", "uid", "cgroup_id", "cgroup"),
    *("container_id", "container", "pod_uid", "unit", "owner_source", "netns", "socket"),
    *("family", "scope_id", "local_ip", "local_port", "remote_ip", "remote_port", "bytes", "error"),
]
SEGMENT_KEYS = [
    *("flags", "seq", "end_seq", "ack", "window", "segs", "packets_out", "ca_state", "cwnd"),
    *("srtt_us", "cause"),
]
OPTION_KEYS = [name for name, _, _ in tcp_options.COLUMNS]
FAMILY_KEYS = {
    "message": [
        *(
            "weight",
            "flags",
            "requested",
            "duration_ns",
            "unread_us",
            "seq",
            "payload",
            "payload_text",
        ),
        *("payload_truncated", "payload_unavailable"),
    ],
    "delivery": ["seq", "send_ts_ns", "unsent_us", "unacked_us"],
    "segment": [
        *("weight", "flags", "seq", "payload", "payload_text", "payload_truncated"),
        *(*SEGMENT_KEYS[2:], "arrival", "ecn", *OPTION_KEYS),
    ],
    "loss": [
        *SEGMENT_KEYS,
        "ecn",
        *OPTION_KEYS,
        *("attempt", "icsk_retransmits", "rto_us", "rttvar_us", "ssthresh"),
        *("sacked_out", "lost_out", "retrans_out", "undone", "outgoing", "reason"),
        *("duplicate_acks", "sack_blocks", "duplicate_ack_first_ts_ns"),
        "duplicate_ack_last_ts_ns",
        *("message_pid", "message_comm", "message_ts_ns", "message_offset", "message_bytes"),
        "message_text",
    ],
    "connection": [
        *("cwnd", "srtt_us", "old_state", "new_state", "elapsed_ns", "ending", "sent"),
        *(
            "reset_reason",
            "iss",
            "irs",
            "bytes_sent",
            "bytes_acked",
            "bytes_received",
            "bytes_retrans",
        ),
        *("busy_us", "rwnd_limited_us", "sndbuf_limited_us", "segs_out", "segs_in"),
        *("data_segs_out", "data_segs_in", "total_retrans", "dsack_dups", "reord_seen"),
        *("min_rtt_us", "delivery_rate", "congestion"),
    ],
    "tls": [
        *("weight", "flags", "requested", "duration_ns", "seq", "payload", "payload_text"),
        *("payload_truncated", "payload_unavailable", "session", "encrypted_bytes"),
        *("stream_offset", "missed_bytes"),
        "socket_source",
    ],
    "translation": [
        *("translated_local_ip", "translated_local_port"),
        *("translated_remote_ip", "translated_remote_port"),
    ],
}


def values(name: str, part: Any) -> list[Any]:
    return BY_NAME[name].to_list(part)


@pytest.mark.parametrize("family", FAMILIES)
def test_keys(family: str) -> None:
    assert [column.name for column in columns_of(family)] == EVENT_KEYS + FAMILY_KEYS[family]


def test_event_has_an_attribute_for_each_column() -> None:
    names = [field.name for field in fields(Event)]
    assert names == [*(column.name for column in COLUMNS), "others"]


def test_every_column_is_explained() -> None:
    assert [column.name for column in COLUMNS if len(column.doc) < 10] == []


def test_every_kind_has_a_family() -> None:
    assert tuple(kind for kinds in FAMILIES.values() for kind in kinds) == KINDS


@pytest.mark.parametrize("family", FAMILIES)
def test_kinds(family: str) -> None:
    part = MAKERS[family](*({"kind": KINDS.index(kind)} for kind in FAMILIES[family]))
    assert part.family == family
    assert values("kind", part) == list(FAMILIES[family])


def test_kind_of_a_newer_kernel_side() -> None:
    assert values("kind", segments({"kind": wire.KIND_COUNT})) == [f"unknown-{wire.KIND_COUNT}"]


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
        ("unread_us", wire.MICROSECONDS_UNKNOWN, 0),
        ("unsent_us", wire.MICROSECONDS_UNKNOWN, 0),
        ("unacked_us", wire.MICROSECONDS_UNKNOWN, 0),
        ("rto_us", wire.MICROSECONDS_UNKNOWN, 200_000),
        ("rttvar_us", wire.MICROSECONDS_UNKNOWN, 0),
        ("ssthresh", 0x7FFFFFFF, 7),
        ("ssthresh", 0, 7),
        ("elapsed_ns", wire.ELAPSED_UNKNOWN, 0),
        ("min_rtt_us", wire.MICROSECONDS_UNKNOWN, 0),
        ("delivery_rate", wire.RATE_UNKNOWN, 0),
    ],
)
def test_sentinels_are_null(name: str, unknown: int, known: int) -> None:
    makers = {**MAKERS, "snapshot": snapshots, "request": requests, "effort": efforts}
    for family in BY_NAME[name].families:
        assert values(name, makers[family]({name: unknown}, {name: known})) == [None, known]


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
        (0xE210, "ACK"),  # the others are not of the header
    ],
)
def test_segment_flags(flags: int, shown: str | None) -> None:
    assert values("flags", segments({"flags": flags})) == [shown]


def test_message_flags_and_unknown_seq() -> None:
    peek, zerocopy, encrypted, unknown = wire.MessageFlag
    part = messages(
        {"flags": 0, "seq": 5},
        {"flags": peek | zerocopy, "seq": 6},
        {"flags": unknown, "seq": 7},
        {"flags": unknown | peek, "seq": 8},
        {"flags": encrypted, "seq": 9},
    )
    assert values("flags", part) == [None, "PEEK|ZEROCOPY", None, "PEEK", "ENCRYPTED"]
    assert values("seq", part) == [5, 6, None, None, 9]


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


@pytest.mark.parametrize(
    ("name", "shown", "make"),
    [
        ("owner_source", ["none", "task", "socket", "iterator"], segments),
        ("cause", [None, "rto", "fast", "tlp", "syn", "syn-ack", "unknown"], losses),
        (
            "ending",
            [None, "fin", "reset_sent", "reset_received", "timeout", "error", "aborted"],
            connections,
        ),
        ("old_state", [None, "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1"], connections),
        ("new_state", [None, "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1"], connections),
    ],
)
def test_numbers_that_have_names(name: str, shown: list[str | None], make: Any) -> None:
    assert values(name, make(*({name: number} for number in range(len(shown))))) == shown
    assert values(name, make({name: 99})) == ["unknown-99"]


@pytest.mark.parametrize("name", ["cause", "ending", "owner_source"])
def test_names_are_those_of_the_documentation(name: str) -> None:
    part = MAKERS[next(iter(BY_NAME[name].families))](*({name: number} for number in range(7)))
    known = [text for text in values(name, part) if text and not text.startswith("unknown-")]
    assert all(text in BY_NAME[name].doc for text in known)


def test_what_only_one_kind_has_is_null_in_the_others() -> None:
    kinds = [{"kind": kind} for kind in wire.EventKind]
    undone = values("undone", losses(*({**kind, "undone": 2} for kind in kinds)))
    outgoing = values("outgoing", losses(*({**kind, "outgoing": 1} for kind in kinds)))
    sent = values("sent", connections(*kinds))
    for kind in wire.EventKind:
        assert undone[kind] == (2 if kind == wire.EventKind.UNDO else None)
        assert outgoing[kind] is (True if kind == wire.EventKind.DROP else None)
        assert sent[kind] is (False if kind == wire.EventKind.RESET else None)


def test_a_look_up_names_what_it_knows() -> None:
    web = Owner(cgroup="/web", container_id="c0ffee", unit="web.service")
    context = Context(
        lambda number: web if number == 7 else Owner(),
        {2: "NOT_SPECIFIED"}.get,
        {4: "TCP_STATE"}.get,
    )
    part = Part(losses({"cgroup_id": 7, "reason": 2}, {"cgroup_id": 8}).rows, context=context)
    assert values("cgroup", part) == ["/web", None]
    assert values("container_id", part) == ["c0ffee", None]
    assert values("container", part) == [None, None]
    assert values("unit", part) == ["web.service", None]
    assert values("reason", part) == ["NOT_SPECIFIED", None]
    resets = Part(connections({"reset_reason": 4}, {}).rows, context=context)
    assert values("reset_reason", resets) == ["TCP_STATE", None]


def test_derived_columns_are_null_until_a_stage_adds_them() -> None:
    part = losses({}, {}, {})
    assert values("attempt", part) == [None, None, None]
    assert values("message_text", part) == [None, None, None]
    derived = part.derive(attempt=np.ma.MaskedArray([2, 9, 3], [False, True, False]))
    assert values("attempt", derived) == [2, None, 3]
    assert values("attempt", derived.take(slice(1, None))) == [None, 3]
    assert values("message_text", derived) == [None, None, None]


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
    named = "spliced, kernel, io_uring, fault, discarded, syscall, encrypted, body"
    assert values("payload_unavailable", part) == [None, *named.split(", ")]
    assert named in wire.DOCS["message.payload_unavailable"]


def test_columns_of_the_other_family_are_null() -> None:
    assert values("ack", messages({}, {})) == [None, None]
    assert values("payload", segments({})) == [None]
    assert values("attempt", segments({})) == [None]
    assert BY_NAME["ack"].mask(messages({}, {})).tolist() == [True, True]


def test_numbers_keep_their_width() -> None:
    assert BY_NAME["ts_ns"].values(segments({})).dtype == np.uint64
