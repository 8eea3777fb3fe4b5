"""The public columns, defined once: JSON keys, Event attributes, batch columns, docs/events.md."""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np

from tcprism.events import _wire, kinds, names
from tcprism.events._wire import MICROSECONDS_UNKNOWN, EventKind
from tcprism.events.column import (
    Column,
    Mask,
    Missing,
    Reader,
    Values,
    derived_column,
    equal,
    looked_up,
    named,
    number,
    other_kind,
    texts,
    wire_column,
)
from tcprism.events.escape import escape, escape_payloads
from tcprism.events.part import Part, row_bytes
from tcprism.events.repeated import COLUMNS as REPEATED
from tcprism.events.tcp_options import COLUMNS as OPTIONS

ALL = kinds.RECORDS.keys()  # those that are registered later, too
MESSAGE = ("message",)
TLS = ("tls",)
MESSAGES = ("message", "tls")
DELIVERY, LOSS, SEGMENTS = ("delivery",), ("loss",), ("segment",)
SEGMENT = ("segment", "loss")
PAYLOAD = ("message", "tls", "segment")
CONNECTION, TRANSLATION, SNAPSHOT = ("connection",), ("translation",), ("snapshot",)
TOTALS = ("connection", "snapshot")
WITH_WEIGHT = ("message", "segment", "tls", "request")
WITH_SEQ = ("message", "delivery", "segment", "loss", "tls")

_INFINITE_SSTHRESH = 0x7FFFFFFF  # TCP_INFINITE_SSTHRESH, include/net/tcp.h


def _address(field: str) -> Reader:
    def read(part: Part) -> Values:
        families = part.rows["family"].tolist()
        return texts(list(map(names.address, families, row_bytes(part.rows[field]))))

    return read


def _text(field: str) -> Reader:
    """Read a name in a fixed number of bytes, ended by a NUL where it is shorter."""

    def read(part: Part) -> Values:
        found, places = np.unique(part.rows[field], return_inverse=True)
        return texts([escape(name.split(b"\0")[0]) for name in found.tolist()])[places]

    return read


def _empty(field: str) -> Missing:
    return lambda part: np.equal(part.rows[field], b"")


def _flags(part: Part) -> Values:
    text = names.message_flags_text if part.family in MESSAGES else names.tcp_flags_text
    return named("flags", text)(part)


def _no_flags(part: Part) -> Mask:
    known = ~np.uint16(_wire.MessageFlag.SEQ_UNKNOWN)
    mask: Mask = np.equal(part.rows["flags"] & known, 0)
    return mask


def _no_ecn(part: Part) -> Mask:
    mask: Mask = part.rows["flags"] < 1 << _wire.ECN_SHIFT
    return mask


def _seq_unknown(part: Part) -> Mask:
    if part.family not in MESSAGES:
        return np.zeros(len(part), bool)
    bit = np.uint16(_wire.MessageFlag.SEQ_UNKNOWN)
    mask: Mask = np.equal(part.rows["flags"] & bit, bit)
    return mask


def _no_payload(part: Part) -> Mask:
    mask: Mask = part.payload_lengths() == 0
    return mask


def _truncated(part: Part) -> Values:
    lengths = part.payload_lengths()
    truncated: Mask = (lengths > 0) & (lengths < part.rows["bytes"])
    return truncated


def _owner_column(name: str, doc: str) -> Column:
    """Return a column that follows from the owner's cgroup."""

    def of_owner(part: Part) -> Callable[[int], str | None]:
        return lambda cgroup_id: getattr(part.context.owner(cgroup_id), name)

    return _looked_up_column(name, ALL, doc, looked_up("cgroup_id", of_owner))


def _looked_up_column(name: str, families: Collection[str], doc: str, read: Reader) -> Column:
    """Return a column of names, null where the look-up knows none."""

    def missing(part: Part) -> Mask:
        return np.fromiter((name is None for name in read(part)), np.bool_, len(part))

    return Column(name, families, "string", doc, None, read, missing)


_no_owner = equal("pid", 0)
_no_time = (MICROSECONDS_UNKNOWN,)

COLUMNS = [
    Column(
        "time",
        ALL,
        "string",
        "when it happened, CLOCK_REALTIME, RFC 3339 in UTC with nanoseconds",
        None,
        number("ts_ns"),  # Batch, which knows the distance of the clocks, makes a time of it
    ),
    wire_column("ts_ns", ALL, "integer"),
    wire_column("kind", ALL, "string", named("kind", kinds.kind_name)),
    wire_column("pid", ALL, "integer", missing=_no_owner),
    wire_column("tid", ALL, "integer", missing=_no_owner),
    wire_column("comm", ALL, "string", _text("comm"), _no_owner),
    wire_column("uid", ALL, "integer", missing=_no_owner),
    wire_column("cgroup_id", ALL, "integer", missing=_no_owner),
    _owner_column("cgroup", "the owner's cgroup v2, as a path below its root"),
    _owner_column("container_id", "the owner's container, as its engine calls it"),
    _owner_column("container", "the container's name, where its engine tells it"),
    _owner_column("pod_uid", "the owner's Kubernetes pod"),
    _owner_column("unit", "the owner's systemd unit"),
    wire_column("owner_source", ALL, "string", named("owner_source", names.owner_source_name)),
    wire_column("netns", ALL, "integer", missing=equal("netns", 0)),
    wire_column("socket", ALL, "integer", missing=equal("socket", 0)),
    wire_column("family", ALL, "integer"),
    wire_column("scope_id", ALL, "integer", missing=equal("scope_id", 0)),
    wire_column("local_ip", ALL, "string", _address("local_ip")),
    wire_column("local_port", ALL, "integer"),
    wire_column("remote_ip", ALL, "string", _address("remote_ip")),
    wire_column("remote_port", ALL, "integer"),
    wire_column("bytes", ALL, "integer"),
    wire_column("error", ALL, "string", named("error", names.errno_name), equal("error", 0)),
    Column(
        "weight",
        WITH_WEIGHT,
        "integer",
        "how many events like it it stands for: 1, or 2, 4, 8, ... where `tcprism serve` records a"
        " sample of the connections, to keep its budget",
        None,
        lambda part: np.left_shift(1, part.rows["sampling"].astype(np.int64)),
    ),
    wire_column("flags", (*MESSAGES, *SEGMENT), "string", _flags, _no_flags),
    wire_column(
        "requested", MESSAGES, "integer", missing=equal("requested", _wire.REQUESTED_UNKNOWN)
    ),
    wire_column(
        "duration_ns", MESSAGES, "integer", missing=equal("duration_ns", _wire.DURATION_UNKNOWN)
    ),
    wire_column("unread_us", MESSAGE, "integer", missing=equal("unread_us", *_no_time)),
    wire_column("seq", WITH_SEQ, "integer", missing=_seq_unknown),
    Column(
        "payload",
        PAYLOAD,
        "string",
        "the payload captured, base64; null when there is none",
        None,
        lambda part: texts(part.payloads()),
        _no_payload,
    ),
    Column(
        "payload_text",
        PAYLOAD,
        "string",
        r"the payload as text: printable ASCII unchanged, a backslash as `\\`, all else as `\xNN`",
        None,
        lambda part: texts(escape_payloads(part)),
        _no_payload,
    ),
    Column(
        "payload_truncated",
        PAYLOAD,
        "boolean",
        "whether payload holds only the first of the bytes",
        None,
        _truncated,
    ),
    wire_column(
        "payload_unavailable",
        MESSAGES,
        "string",
        named("payload_unavailable", names.reason_name),
        equal("payload_unavailable", _wire.PayloadReason.AVAILABLE),
    ),
    wire_column("session", TLS, "integer"),
    wire_column("encrypted_bytes", TLS, "integer"),
    wire_column("stream_offset", TLS, "integer"),
    wire_column("missed_bytes", TLS, "integer", missing=equal("missed_bytes", _wire.BYTES_UNKNOWN)),
    wire_column("socket_source", TLS, "string", named("socket_source", names.socket_source_name)),
    wire_column("send_ts_ns", DELIVERY, "integer"),
    wire_column("unsent_us", DELIVERY, "integer", missing=equal("unsent_us", *_no_time)),
    wire_column("unacked_us", DELIVERY, "integer", missing=equal("unacked_us", *_no_time)),
    wire_column("end_seq", SEGMENT, "integer"),
    wire_column("ack", SEGMENT, "integer"),
    wire_column("window", SEGMENT, "integer", missing=equal("window", _wire.WINDOW_UNKNOWN)),
    wire_column("segs", SEGMENT, "integer"),
    wire_column("packets_out", (*SEGMENT, *SNAPSHOT), "integer"),
    wire_column(
        "ca_state",
        (*SEGMENT, *SNAPSHOT),
        "string",
        named("ca_state", names.ca_state_name),
        equal("ca_state", _wire.CA_STATE_UNKNOWN),
    ),
    wire_column("cwnd", (*SEGMENT, *TOTALS), "integer", missing=equal("cwnd", 0)),
    wire_column("srtt_us", (*SEGMENT, *TOTALS), "integer", missing=equal("srtt_us", *_no_time)),
    wire_column(
        "cause",
        SEGMENT,
        "string",
        named("cause", names.cause_name),
        equal("cause", _wire.Cause.NONE),
    ),
    wire_column(
        "arrival",
        SEGMENTS,
        "string",
        named("arrival", names.arrival_name),
        equal("arrival", _wire.SegmentArrival.UNKNOWN),
    ),
    Column(
        "ecn",
        SEGMENT,
        "string",
        "ECN field of the IP header (RFC 3168): ect0, ect1 or ce (the path is congested); null when"
        " it has none, or when the hook cannot tell, as of a retransmission without --options",
        None,
        named("flags", names.ecn_name),
        _no_ecn,
    ),
    *(
        derived_column(name, SEGMENT, kind, f"{doc}; null without --options")
        for name, kind, doc in OPTIONS
    ),
    derived_column(
        "attempt",
        LOSS,
        "integer",
        "retransmit: how many times its first byte was seen to be sent: 2 is the first"
        " retransmission; else null",
    ),
    wire_column("icsk_retransmits", (*LOSS, *SNAPSHOT), "integer"),
    wire_column("rto_us", (*LOSS, *SNAPSHOT), "integer", missing=equal("rto_us", *_no_time)),
    wire_column("rttvar_us", (*LOSS, *SNAPSHOT), "integer", missing=equal("rttvar_us", *_no_time)),
    wire_column(
        "ssthresh", (*LOSS, *SNAPSHOT), "integer", missing=equal("ssthresh", 0, _INFINITE_SSTHRESH)
    ),
    wire_column("sacked_out", (*LOSS, *SNAPSHOT), "integer"),
    wire_column("lost_out", (*LOSS, *SNAPSHOT), "integer"),
    wire_column("retrans_out", (*LOSS, *SNAPSHOT), "integer"),
    wire_column("undone", LOSS, "integer", missing=other_kind(EventKind.UNDO)),
    wire_column(
        "outgoing",
        LOSS,
        "boolean",
        lambda part: part.rows["outgoing"] != 0,
        other_kind(EventKind.DROP),
    ),
    _looked_up_column(
        "reason",
        LOSS,
        _wire.DOCS["loss.reason"],
        looked_up("reason", lambda part: part.context.drop_reason),
    ),
    *(derived_column(name, LOSS, kind, doc) for name, kind, doc in REPEATED),
    wire_column(
        "old_state",
        CONNECTION,
        "string",
        named("old_state", names.state_name),
        equal("old_state", 0),
    ),
    wire_column(
        "new_state",
        CONNECTION,
        "string",
        named("new_state", names.state_name),
        equal("new_state", 0),
    ),
    wire_column(
        "elapsed_ns", CONNECTION, "integer", missing=equal("elapsed_ns", _wire.ELAPSED_UNKNOWN)
    ),
    wire_column(
        "ending",
        CONNECTION,
        "string",
        named("ending", names.ending_name),
        equal("ending", _wire.Ending.NONE),
    ),
    wire_column(
        "sent",
        CONNECTION,
        "boolean",
        lambda part: part.rows["sent"] != 0,
        other_kind(EventKind.RESET),
    ),
    _looked_up_column(
        "reset_reason",
        CONNECTION,
        _wire.DOCS["connection_event.reset_reason"],
        looked_up("reset_reason", lambda part: part.context.reset_reason),
    ),
    wire_column("iss", CONNECTION, "integer", missing=equal("iss", 0)),
    wire_column("irs", CONNECTION, "integer", missing=equal("irs", 0)),
    *(
        wire_column(name, TOTALS, "integer")
        for name in (
            "bytes_sent",
            "bytes_acked",
            "bytes_received",
            "bytes_retrans",
            "busy_us",
            "rwnd_limited_us",
            "sndbuf_limited_us",
            "segs_out",
            "segs_in",
            "data_segs_out",
            "data_segs_in",
            "total_retrans",
            "dsack_dups",
            "reord_seen",
        )
    ),
    wire_column("min_rtt_us", TOTALS, "integer", missing=equal("min_rtt_us", *_no_time)),
    wire_column(
        "delivery_rate", TOTALS, "integer", missing=equal("delivery_rate", _wire.RATE_UNKNOWN)
    ),
    wire_column("congestion", TOTALS, "string", _text("congestion"), _empty("congestion")),
    *(
        column
        for side in ("local", "remote")
        for column in (
            wire_column(
                f"translated_{side}_ip", TRANSLATION, "string", _address(f"translated_{side}_ip")
            ),
            wire_column(f"translated_{side}_port", TRANSLATION, "integer"),
        )
    ),
    wire_column("state", SNAPSHOT, "string", named("state", names.state_name)),
    derived_column(
        "holders", SNAPSHOT, "string", "all processes that have the socket open, as comm[pid], ..."
    ),
    derived_column(
        "age_ns",
        SNAPSHOT,
        "integer",
        "time since it was established, nanoseconds; null when that was not seen",
    ),
    *(
        wire_column(name, SNAPSHOT, "integer")
        for name in (
            "inode",
            "last_data_sent_us",
            "last_data_recv_us",
            "unsent",
            "unacked",
            "unread",
            "snd_wnd",
            "rcv_wnd",
            "sndbuf",
            "rcvbuf",
            "mss",
            "backlog",
            "backlog_limit",
            "probes_out",
        )
    ),
    wire_column("nodelay", SNAPSHOT, "boolean", lambda part: part.rows["nodelay"] != 0),
]

BY_NAME = {column.name: column for column in COLUMNS}


@kinds.remembered
def columns_of(family: str) -> tuple[Column, ...]:
    """Return the columns that events of a family have, in their order."""
    return tuple(column for column in COLUMNS if family in column.families)
