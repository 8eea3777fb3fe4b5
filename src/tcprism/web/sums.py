"""Sums: what events add to the row of their connection, one function a family."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tcprism.events._wire import ELAPSED_UNKNOWN, MICROSECONDS_UNKNOWN, Cause, EventKind
from tcprism.events.names import STATES, cause_name
from tcprism.events.part import Rows
from tcprism.web.growing import Growing

CAUSES = tuple(cause_name(cause) for cause in Cause if cause != Cause.NONE)
_ESTABLISHED = STATES.index("ESTABLISHED")

Numbers = NDArray[np.intp]


def _add_messages(table: Growing, rows: Rows, numbers: Numbers, sides: Numbers) -> None:
    moved = rows["bytes"].astype(np.int64)
    for name, kind in (("written", EventKind.SEND), ("read", EventKind.RECV)):
        np.add.at(table[name], (numbers, sides), moved * (rows["kind"] == kind))


def _add_segments(table: Growing, rows: Rows, numbers: Numbers, sides: Numbers) -> None:
    left = (rows["kind"] == EventKind.TRANSMIT) & (rows["bytes"] > 0)
    np.add.at(table["segments"], numbers[left], rows["segs"][left].astype(np.int64))
    _take_round_trips(table, rows, numbers, sides)


def _take_round_trips(table: Growing, rows: Rows, numbers: Numbers, sides: Numbers) -> None:
    known = rows["srtt_us"] != MICROSECONDS_UNKNOWN
    table["srtt_us"][numbers[known], sides[known]] = rows["srtt_us"][known]


def _add_losses(table: Growing, rows: Rows, numbers: Numbers, sides: Numbers) -> None:
    again = (rows["kind"] == EventKind.RETRANSMIT) & (rows["error"] == 0)
    segments = rows["segs"][again].astype(np.int64)
    np.add.at(table["causes"], (numbers[again], rows["cause"][again]), segments)
    np.add.at(table["drops"], numbers[rows["kind"] == EventKind.DROP], 1)
    _take_round_trips(table, rows[again], numbers[again], sides[again])


def _add_connections(table: Growing, rows: Rows, numbers: Numbers, sides: Numbers) -> None:
    kinds = rows["kind"]
    asked, took = kinds == EventKind.CONNECT, kinds == EventKind.ACCEPT
    known = rows["elapsed_ns"] != ELAPSED_UNKNOWN
    began = asked & known & (rows["elapsed_ns"] <= rows["ts_ns"])
    called = (rows["ts_ns"] - rows["elapsed_ns"])[began].astype(np.int64)
    np.minimum.at(table["first_ns"], numbers[began], called)
    table["client"][numbers[took]] = 1 - sides[took]
    table["client"][numbers[asked]] = sides[asked]
    failed = asked & (rows["new_state"] != _ESTABLISHED)
    table["failed"][numbers[failed]] = True
    for name, which in (("closed", kinds == EventKind.CLOSE), ("error", failed)):
        table[name][numbers[which], sides[which]] = True if name == "closed" else rows[name][which]
    over = kinds == EventKind.CLOSE
    for name in ("ending", "error"):
        told = over & (rows[name] != 0)
        table[name][numbers[told], sides[told]] = rows[name][told]
    _take_totals(table, rows[over], (numbers[over], sides[over]))


def _add_snapshots(table: Growing, rows: Rows, numbers: Numbers, sides: Numbers) -> None:
    _take_totals(table, rows, (numbers, sides))
    _take_round_trips(table, rows, numbers, sides)


def _take_totals(table: Growing, rows: Rows, at: tuple[Numbers, Numbers]) -> None:
    """Take what the kernel counts, retransmissions apart."""
    sent = rows["bytes_sent"].astype(np.int64) - rows["bytes_retrans"].astype(np.int64)
    for name, total in (("written", sent), ("read", rows["bytes_received"].astype(np.int64))):
        table[f"total_{name}"][at] = np.maximum(table[f"total_{name}"][at], total)


def _add_requests(table: Growing, rows: Rows, numbers: Numbers, sides: Numbers) -> None:
    np.add.at(table["requests"], numbers, 1)
    np.add.at(table["failures"], numbers, (rows["failed"] != 0).astype(np.int64))
    unknown = table["client"][numbers] < 0
    table["client"][numbers[unknown]] = sides[unknown]  # who asks is local in a request
    served = rows["server_pid"] != 0
    table["pid"][numbers[served], 1 - sides[served]] = rows["server_pid"][served]
    table["comm"][numbers[served], 1 - sides[served]] = rows["server_comm"][served]


ADDERS = {
    "message": _add_messages,
    "segment": _add_segments,
    "loss": _add_losses,
    "connection": _add_connections,
    "snapshot": _add_snapshots,
    "request": _add_requests,
}
