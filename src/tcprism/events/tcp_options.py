"""The options of TCP headers as columns (RFC 9293, 3.1, and the RFCs named below)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcprism.events._wire import OPTIONS_MAX
from tcprism.events.column import texts
from tcprism.events.part import Part

_END, _NOP, _MSS, _WINDOW_SCALE, _SACK_PERMITTED, _SACK, _TIMESTAMPS = 0, 1, 2, 3, 4, 5, 8
_MPTCP, _FAST_OPEN, _EXPERIMENT = 30, 34, 254  # RFC 8684, 7413, 6994
_FAST_OPEN_EXPERIMENT = 0xF989  # RFC 7413, 4.1.1: before it had a number
_MPTCP_SUBTYPES = (
    *("MP_CAPABLE", "MP_JOIN", "DSS", "ADD_ADDR", "REMOVE_ADDR", "MP_PRIO", "MP_FAIL"),
    *("MP_FASTCLOSE", "MP_TCPRST"),
)  # RFC 8684, 8
_SYN = 0x02
_ACCURATE_ECN = {172: ("ee0b", "eceb", "ee1b"), 174: ("ee1b", "eceb", "ee0b")}  # RFC 9768, 3.2.3
_ROOM = 9  # read behind the last option, so that no length need be checked first

_GOT = "the payload bytes, modulo 2^24, that its sender got (RFC 9768) marked"
COLUMNS = (
    ("options", "string", "the options of its TCP header as they are, hexadecimal"),
    ("max_segment_size", "integer", "in a SYN: payload bytes of a segment that its sender takes"),
    ("window_scale", "integer", "in a SYN: how many bits its sender's later windows are shifted"),
    ("sack_permitted", "boolean", "in a SYN: whether its sender understands SACK"),
    ("sack", "string", "what has arrived out of order, as in 1001:2001, 3001:4001 (RFC 2018)"),
    ("ts_val", "integer", "time stamp of the sender (RFC 7323)"),
    ("ts_ecr", "integer", "the time stamp of the other end that it answers (RFC 7323)"),
    ("fast_open_cookie_length", "integer", "bytes of the cookie; 0 asks for one (RFC 7413)"),
    ("accecn_ee0b", "integer", f"EE0B of AccECN: 1 + {_GOT} ECT(0)"),
    ("accecn_eceb", "integer", f"ECEB of AccECN: {_GOT} CE"),
    ("accecn_ee1b", "integer", f"EE1B of AccECN: 1 + {_GOT} ECT(1)"),
    ("mptcp", "string", "subtypes of MPTCP options, as in MP_CAPABLE (RFC 8684)"),
)

Masked = np.ma.MaskedArray[Any, Any]
Numbers = NDArray[np.int64]


def with_options(part: Part, wanted: bool = True) -> Part:
    """Return segments with the options behind their records as derived columns, if wanted.

    They stand where other families have payload, and payload behind them. A part without any stays
    as it is.
    """
    if part.payload is None or "options_length" not in (part.rows.dtype.names or ()):
        return part
    table, payload = part.payload[:, :OPTIONS_MAX], part.payload[:, OPTIONS_MAX:]
    part = replace(part, payload=payload if payload.shape[1] else None)
    return _derived(part, table) if wanted else part


def _derived(part: Part, table: NDArray[np.uint8]) -> Part:
    lengths = np.minimum(part.rows["options_length"].astype(np.int64), table.shape[1])
    raw, width = np.ascontiguousarray(table).tobytes().hex(), 2 * table.shape[1]
    ends = (2 * lengths + np.arange(len(part)) * width).tolist()
    written = [raw[place * width : end] for place, end in enumerate(ends)]
    return part.derive(
        options=np.ma.MaskedArray(texts(written), lengths == 0),
        **_Options(table, lengths).columns(part.rows["flags"] & _SYN != 0),
    )


class _Options:
    """Reads the options of all rows side by side: the first of each, then the second, ..."""

    def __init__(self, table: NDArray[np.uint8], lengths: Numbers) -> None:
        count = len(table)
        self._table = np.zeros((count, OPTIONS_MAX + _ROOM), np.uint8)
        inside = np.arange(table.shape[1]) < lengths[:, None]
        self._table[:, : table.shape[1]] = np.where(inside, table, 0)
        self._found = {
            name: (np.zeros(count, np.int64), np.zeros(count, np.bool_))
            for name in (
                *("max_segment_size", "window_scale", "ts_val", "ts_ecr"),
                *("fast_open_cookie_length", "accecn_ee0b", "accecn_eceb", "accecn_ee1b"),
            )
        }
        self._sack_permitted = np.zeros(count, np.bool_)
        self._words: dict[str, list[str]] = {"sack": [""] * count, "mptcp": [""] * count}
        self._lengths = lengths
        self._read()

    def columns(self, syn: NDArray[np.bool_]) -> dict[str, Masked]:
        """Return the columns, masked where a header does not have the option, or could not."""
        found = {
            name: np.ma.MaskedArray(values, ~there) for name, (values, there) in self._found.items()
        }
        words = {
            name: np.ma.MaskedArray(texts(values), [not value for value in values])
            for name, values in self._words.items()
        }
        permitted = np.ma.MaskedArray(self._sack_permitted, ~syn | (self._lengths == 0))
        return {**found, **words, "sack_permitted": permitted}

    def _read(self) -> None:
        rows, at = np.arange(len(self._table)), np.zeros(len(self._table), np.int64)
        while len(rows):
            kind = self._table[rows, at]
            inside = (at < self._lengths[rows]) & (kind != _END)
            size = np.where(kind == _NOP, 1, self._table[rows, at + 1]).astype(np.int64)
            whole = inside & (size >= 1) & (at + size <= self._lengths[rows])
            whole &= (size >= 2) | (kind == _NOP)
            rows, at, kind, size = rows[whole], at[whole], kind[whole], size[whole]
            for number in np.unique(kind).tolist():
                these = kind == number
                self._take(number, rows[these], at[these], size[these])
            at = at + size

    def _take(self, kind: int, rows: NDArray[np.intp], at: Numbers, size: Numbers) -> None:
        if kind == _MSS:
            self._set("max_segment_size", rows, self._number(rows, at + 2, 2), size == 4)
        elif kind == _WINDOW_SCALE:
            self._set("window_scale", rows, self._number(rows, at + 2, 1), size == 3)
        elif kind == _SACK_PERMITTED:
            self._sack_permitted[rows] = True
        elif kind == _TIMESTAMPS:
            self._set("ts_val", rows, self._number(rows, at + 2, 4), size == 10)
            self._set("ts_ecr", rows, self._number(rows, at + 6, 4), size == 10)
        elif kind == _FAST_OPEN:
            self._set("fast_open_cookie_length", rows, size - 2, size >= 2)
        elif kind == _EXPERIMENT:
            named = self._number(rows, at + 2, 2) == _FAST_OPEN_EXPERIMENT
            self._set("fast_open_cookie_length", rows, size - 4, named & (size >= 4))
        elif kind in _ACCURATE_ECN:
            self._take_counters(_ACCURATE_ECN[kind], rows, at, size)
        elif kind == _SACK:
            self._write("sack", rows, at, size, _ranges)
        elif kind == _MPTCP:
            self._write("mptcp", rows, at, size, _subtype)

    def _take_counters(
        self, names: tuple[str, ...], rows: NDArray[np.intp], at: Numbers, size: Numbers
    ) -> None:
        for place, name in enumerate(names):
            value = self._number(rows, at + 2 + 3 * place, 3)
            self._set(f"accecn_{name}", rows, value, size >= 5 + 3 * place)

    def _set(
        self, name: str, rows: NDArray[np.intp], values: Numbers, fits: NDArray[np.bool_]
    ) -> None:
        found, there = self._found[name]
        found[rows[fits]] = values[fits]
        there[rows[fits]] = True

    def _number(self, rows: NDArray[np.intp], at: Numbers, size: int) -> Numbers:
        value = np.zeros(len(rows), np.int64)
        for place in range(size):
            value = value << 8 | self._table[rows, at + place]
        return value

    def _write(
        self, name: str, rows: NDArray[np.intp], at: Numbers, size: Numbers, write: Any
    ) -> None:
        for row, begin, length in zip(rows.tolist(), at.tolist(), size.tolist(), strict=True):
            text = write(self._table[row, begin + 2 : begin + length].tobytes())
            self._words[name][row] += (", " if self._words[name][row] and text else "") + text


def _ranges(value: bytes) -> str:
    """Return ranges of sequence numbers, as in 1001:2001 (RFC 2018)."""
    numbers = [int.from_bytes(value[at : at + 4], "big") for at in range(0, len(value) // 8 * 8, 4)]
    return ", ".join(f"{a}:{b}" for a, b in zip(numbers[::2], numbers[1::2], strict=True))


def _subtype(value: bytes) -> str:
    number = value[0] >> 4 if value else len(_MPTCP_SUBTYPES)
    return _MPTCP_SUBTYPES[number] if number < len(_MPTCP_SUBTYPES) else f"unknown-{number}"
