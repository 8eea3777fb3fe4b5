"""Connections: both ends of each as one row, with what events add up to."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcprism.diagnosis.ends import ends_keys, other_end_keys
from tcprism.events import Part
from tcprism.events._wire import MICROSECONDS_UNKNOWN, Cause, EventKind
from tcprism.events.columns import BY_NAME
from tcprism.events.escape import escape
from tcprism.events.names import STATES, cause_name, ending_name, endpoint, errno_name, process
from tcprism.events.part import Rows
from tcprism.events.scopes import shown
from tcprism.web.growing import Growing

CAUSES = tuple(cause_name(cause) for cause in Cause if cause != Cause.NONE)
_LISTEN, _ESTABLISHED = STATES.index("LISTEN"), STATES.index("ESTABLISHED")
_NEVER = np.iinfo(np.int64).max
_PRIME = np.uint64(0x9E3779B97F4A7C15)
_TWO = (2,)  # the two ends
# Segments of a handshake, and drops, have the listener's socket.
_OWN_SOCKET = ("message", "delivery", "connection", "snapshot")

Numbers = NDArray[np.intp]


class Connections:
    """A row a connection, whichever of its ends is seen; numbered in the order in which they come.

    Side 0 is the end that was seen first. At most `limit` are kept; `refused` counts sockets that
    there was no room for.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.refused = 0
        self.table = Growing(
            {
                "first_ns": np.int64,
                "last_ns": np.int64,
                "client": np.int8,  # the side that asked for the connection, -1: unknown
                "pid": (np.uint32, _TWO),
                "comm": ("S16", _TWO),
                "written": (np.int64, _TWO),
                "read": (np.int64, _TWO),
                "total_written": (np.int64, _TWO),  # as the kernel counts
                "total_read": (np.int64, _TWO),
                "closed": (np.bool_, _TWO),
                "ending": (np.uint8, _TWO),
                "error": (np.int32, _TWO),
                "failed": np.bool_,
                "causes": (np.int64, (len(CAUSES) + 1,)),
                "srtt_us": (np.uint32, _TWO),
                "drops": np.int64,
                "segments": np.int64,  # with data
                "requests": np.int64,
                "failures": np.int64,
            }
        )
        self.ends: list[tuple[str, str]] = []  # of side 0 and of side 1
        self._known: dict[int, int] = {}  # a socket at its end -> 2 * number + side
        self._latest: dict[int, int] = {}  # an end -> 2 * number + side
        self._sockets: list[list[int]] = []

    def __len__(self) -> int:
        return len(self.table)

    def places(self, part: Part) -> tuple[Numbers, Numbers]:
        """Return the number of each record's connection, and the side that it was seen at.

        -1 stands for what is no connection, or one that there is no room for.
        """
        rows = part.rows
        own, other = ends_keys(rows), other_end_keys(rows)
        # A request has the client's ends, and may have the server's socket.
        sockets = rows["socket"].astype(np.uint64) * np.uint64(part.family != "request")
        keys = own ^ (sockets * _PRIME)
        distinct, first, back = np.unique(keys, return_index=True, return_inverse=True)
        found = np.empty(len(distinct), np.intp)
        for place in np.argsort(first).tolist():  # in the order in which they came
            key, row = int(distinct[place]), int(first[place])
            at = self._known.get(key)
            if at is None:
                ends = int(own[row]), int(other[row])
                at = self._place(ends, int(sockets[row]), part, row)
                if at >= 0 and sockets[row] and self._sockets[at >> 1][at & 1] == sockets[row]:
                    self._known[key] = at
            found[place] = at
        codes = found[back]
        numbers = np.where(codes < 0, -1, codes >> 1)
        return numbers, codes & 1

    def _place(self, ends: tuple[int, int], socket: int, part: Part, row: int) -> int:
        """Find the connection of a socket, or make one where its ports are used anew."""
        at = self._latest.get(ends[0], -1)
        own = socket and part.family in _OWN_SOCKET
        if at >= 0:
            sockets, side = self._sockets[at >> 1], at & 1
            if not own or sockets[side] in (0, socket):
                sockets[side] = sockets[side] or (socket if own else 0)
                return at
        if not _is_connection(part.rows[row]):
            return -1
        if len(self) >= self._limit:
            self.refused += 1
            return -1
        return self._make(ends, socket if own else 0, part, row)

    def _make(self, ends: tuple[int, int], socket: int, part: Part, row: int) -> int:
        number = len(self)
        self.table.grow(1)
        self.table["first_ns"][number] = _NEVER
        self.table["client"][number] = -1
        self.table["srtt_us"][number] = MICROSECONDS_UNKNOWN
        self._latest[ends[0]], self._latest[ends[1]] = 2 * number, 2 * number + 1
        self._sockets.append([socket, 0])
        one = part.take(slice(row, row + 1))
        local, remote = (
            endpoint(shown(one, f"{end}_ip")[0], BY_NAME[f"{end}_port"].to_list(one)[0])
            for end in ("local", "remote")
        )
        self.ends.append((local, remote))
        return 2 * number

    def add(self, part: Part, numbers: Numbers, sides: Numbers) -> None:
        """Add up what events tell."""
        known = numbers >= 0
        if not known.all():
            part, numbers, sides = part.take(known), numbers[known], sides[known]
        if not len(part):
            return
        rows, table = part.rows, self.table
        moments = rows["ts_ns"].astype(np.int64)
        np.minimum.at(table["first_ns"], numbers, moments)
        np.maximum.at(table["last_ns"], numbers, moments)
        owned = rows["pid"] != 0
        for name in ("pid", "comm"):
            table[name][numbers[owned], sides[owned]] = rows[name][owned]
        adder = _ADDERS.get(part.family)
        if adder:
            adder(table, rows, numbers, sides)

    def moved(self, name: str) -> NDArray[np.int64]:
        """Return the bytes "written" or "read" at both ends: in calls, else as the kernel counts.

        The kernel counts the end of the stream as a byte that was received.
        """
        called = self.table[name]
        counted: NDArray[np.int64] = np.where(called > 0, called, self.table[f"total_{name}"])
        return counted

    def client_side(self, number: int) -> int:
        """Return the side that asked for the connection; where that is not known, side 0."""
        return max(0, int(self.table["client"][number]))

    def owner(self, number: int, side: int) -> str:
        """Return the process at an end, as in curl[812], or "-"."""
        pid = int(self.table["pid"][number, side])
        return process(escape(self.table["comm"][number, side].split(b"\0")[0]), pid or None)

    def row(self, number: int) -> dict[str, Any]:
        """Return a connection as JSON has it, its client first."""
        table, client = self.table, self.client_side(number)
        sides = (client, 1 - client)
        causes = table["causes"][number].tolist()
        ending = [ending_name(table["ending"][number, side]) for side in sides]
        return {
            "n": number,
            "first": int(table["first_ns"][number]),
            "last": int(table["last_ns"][number]),
            "ends": [self.ends[number][side] for side in sides],
            "owners": [self.owner(number, side) for side in sides],
            "seen": [
                bool(self._sockets[number][side] or table["pid"][number, side]) for side in sides
            ],
            "client_known": bool(table["client"][number] >= 0),
            **{name: self.moved(name)[number, sides].tolist() for name in ("written", "read")},
            "closed": bool(table["closed"][number].any()),
            "failed": bool(table["failed"][number]),
            "endings": [None if text == "none" else text.replace("_", " ") for text in ending],
            "errors": [errno_name(int(table["error"][number, side])) for side in sides],
            "causes": dict(zip(CAUSES, causes[1:], strict=True)),
            "retransmissions": sum(causes),
            "srtt_us": [
                None if value == MICROSECONDS_UNKNOWN else value
                for value in table["srtt_us"][number, sides].tolist()
            ],
            "drops": int(table["drops"][number]),
            "requests": int(table["requests"][number]),
            "failures": int(table["failures"][number]),
        }

    def text(self, number: int) -> str:
        """Return what a filter's words are looked for in."""
        owners = (self.owner(number, side) for side in (0, 1))
        return " ".join((*self.ends[number], *owners)).lower()


def _is_connection(record: np.void) -> bool:
    """Tell whether a record is of a connection: a listener has no other end."""
    return bool(record["local_port"] and record["remote_port"])


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
    again = rows["kind"] == EventKind.RETRANSMIT
    segments = rows["segs"][again].astype(np.int64)
    np.add.at(table["causes"], (numbers[again], rows["cause"][again]), segments)
    np.add.at(table["drops"], numbers[rows["kind"] == EventKind.DROP], 1)
    _take_round_trips(table, rows[again], numbers[again], sides[again])


def _add_connections(table: Growing, rows: Rows, numbers: Numbers, sides: Numbers) -> None:
    kinds = rows["kind"]
    asked, took = kinds == EventKind.CONNECT, kinds == EventKind.ACCEPT
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


_ADDERS = {
    "message": _add_messages,
    "segment": _add_segments,
    "loss": _add_losses,
    "connection": _add_connections,
    "snapshot": _add_snapshots,
    "request": _add_requests,
}
