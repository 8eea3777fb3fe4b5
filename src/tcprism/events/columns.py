"""The public columns, defined once: JSON keys, Event attributes, batch columns, docs/events.md.

A column's values are NumPy values where JSON has a number, and objects where it has a string.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcprism.events import _wire, names
from tcprism.events.escape import escape, escape_payloads
from tcprism.events.part import Part, row_bytes

Values = NDArray[Any]
Reader = Callable[[Part], Values]
Mask = NDArray[np.bool_]

BOTH = ("message", "segment")
MESSAGE = ("message",)
SEGMENT = ("segment",)


@dataclass(frozen=True)
class Column:
    """One public column.

    `families` have it, `field` is the wire field it comes from (None: computed), `values` reads it
    from a part and `missing` tells in which rows it is null (None: never).
    """

    name: str
    families: tuple[str, ...]
    json_type: str
    doc: str
    field: str | None
    values: Reader
    missing: Callable[[Part], Mask] | None = None

    @property
    def nullable(self) -> bool:
        """Whether the column can be null in an event of a family that has it."""
        return self.missing is not None

    def mask(self, part: Part) -> Mask:
        """Return in which rows of a part the column is null; in all when the family lacks it."""
        if part.family not in self.families:
            return np.ones(len(part), np.bool_)
        return np.zeros(len(part), np.bool_) if self.missing is None else self.missing(part)

    def to_list(self, part: Part) -> list[Any]:
        """Return the column as Python values, None where it is null."""
        mask = self.mask(part)
        if mask.all():
            return [None] * len(part)
        values: list[Any] = self.values(part).tolist()
        for index in np.flatnonzero(mask).tolist():
            values[index] = None
        return values


def _number(field: str) -> Reader:
    return lambda part: part.rows[field]


def _equal(field: str, sentinel: int) -> Callable[[Part], Mask]:
    return lambda part: np.equal(part.rows[field], sentinel)


def _texts(texts: list[Any]) -> Values:
    values = np.empty(len(texts), object)
    values[:] = texts
    return values


def _named(field: str, name: Callable[[int], str | None]) -> Reader:
    """Read a field as names; each distinct number is looked up once."""

    def read(part: Part) -> Values:
        # Contiguous, because NumPy sorts a field inside a record slowly.
        field_values = np.ascontiguousarray(part.rows[field])
        numbers, places = np.unique(field_values, return_inverse=True)
        return _texts([name(number) for number in numbers.tolist()])[places]

    return read


def _address(field: str) -> Reader:
    def read(part: Part) -> Values:
        families = part.rows["family"].tolist()
        return _texts(list(map(names.address, families, row_bytes(part.rows[field]))))

    return read


def _comm(part: Part) -> Values:
    comms, places = np.unique(part.rows["comm"], return_inverse=True)
    return _texts([escape(comm.split(b"\0")[0]) for comm in comms.tolist()])[places]


def _flags(part: Part) -> Values:
    text = names.message_flags_text if part.family == "message" else names.tcp_flags_text
    return _named("flags", text)(part)


def _no_flags(part: Part) -> Mask:
    known = ~np.uint16(_wire.MessageFlag.SEQ_UNKNOWN)
    mask: Mask = np.equal(part.rows["flags"] & known, 0)
    return mask


def _seq_unknown(part: Part) -> Mask:
    if part.family == "segment":
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


def _wire_column(
    name: str,
    families: tuple[str, ...],
    json_type: str,
    values: Reader | None = None,
    missing: Callable[[Part], Mask] | None = None,
) -> Column:
    """Return a column that shows the wire field of the same name, with that field's text."""
    struct = "event" if name in (_wire.EVENT.names or ()) else families[0]
    doc = _wire.DOCS[f"{struct}.{name}"]
    return Column(name, families, json_type, doc, name, values or _number(name), missing)


_no_owner = _equal("pid", 0)

COLUMNS = (
    Column(
        "time",
        BOTH,
        "string",
        "when it happened, CLOCK_REALTIME, RFC 3339 in UTC with nanoseconds",
        None,
        _number("ts_ns"),  # Batch, which knows the distance of the clocks, makes a time of it
    ),
    _wire_column("ts_ns", BOTH, "integer"),
    _wire_column("kind", BOTH, "string", _named("kind", names.kind_name)),
    _wire_column("pid", BOTH, "integer", missing=_no_owner),
    _wire_column("tid", BOTH, "integer", missing=_no_owner),
    _wire_column("comm", BOTH, "string", _comm, _no_owner),
    _wire_column("uid", BOTH, "integer", missing=_no_owner),
    _wire_column("cgroup_id", BOTH, "integer", missing=_no_owner),
    _wire_column("netns", BOTH, "integer", missing=_equal("netns", 0)),
    _wire_column("socket", BOTH, "integer", missing=_equal("socket", 0)),
    _wire_column("family", BOTH, "integer"),
    _wire_column("local_ip", BOTH, "string", _address("local_ip")),
    _wire_column("local_port", BOTH, "integer"),
    _wire_column("remote_ip", BOTH, "string", _address("remote_ip")),
    _wire_column("remote_port", BOTH, "integer"),
    _wire_column("bytes", BOTH, "integer"),
    _wire_column("error", BOTH, "string", _named("error", names.errno_name), _equal("error", 0)),
    _wire_column("flags", BOTH, "string", _flags, _no_flags),
    _wire_column(
        "requested", MESSAGE, "integer", missing=_equal("requested", _wire.REQUESTED_UNKNOWN)
    ),
    _wire_column(
        "duration_ns", MESSAGE, "integer", missing=_equal("duration_ns", _wire.DURATION_UNKNOWN)
    ),
    _wire_column("seq", BOTH, "integer", missing=_seq_unknown),
    Column(
        "payload",
        MESSAGE,
        "string",
        "the payload captured, base64; null when there is none",
        None,
        lambda part: _texts(part.payloads()),
        _no_payload,
    ),
    Column(
        "payload_text",
        MESSAGE,
        "string",
        r"the payload as text: printable ASCII as it is, all else as `\xNN`, the backslash as `\\`",
        None,
        lambda part: _texts(escape_payloads(part)),
        _no_payload,
    ),
    Column(
        "payload_truncated",
        MESSAGE,
        "boolean",
        "whether payload holds only the first of the bytes",
        None,
        _truncated,
    ),
    _wire_column(
        "payload_unavailable",
        MESSAGE,
        "string",
        _named("payload_unavailable", names.reason_name),
        _equal("payload_unavailable", _wire.PayloadReason.AVAILABLE),
    ),
    _wire_column("end_seq", SEGMENT, "integer"),
    _wire_column("ack", SEGMENT, "integer"),
    _wire_column("window", SEGMENT, "integer", missing=_equal("window", _wire.WINDOW_UNKNOWN)),
    _wire_column("segs", SEGMENT, "integer"),
    _wire_column("cwnd", SEGMENT, "integer", missing=_equal("cwnd", 0)),
    _wire_column("srtt_us", SEGMENT, "integer", missing=_equal("srtt_us", _wire.SRTT_UNKNOWN)),
    _wire_column("packets_out", SEGMENT, "integer"),
    _wire_column(
        "ca_state",
        SEGMENT,
        "string",
        _named("ca_state", names.ca_state_name),
        _equal("ca_state", _wire.CA_STATE_UNKNOWN),
    ),
)

BY_NAME = {column.name: column for column in COLUMNS}


@cache
def columns_of(family: str) -> tuple[Column, ...]:
    """Return the columns that events of a family have, in their order."""
    return tuple(column for column in COLUMNS if family in column.families)
