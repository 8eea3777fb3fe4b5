"""Connections: both ends of each as one row, with what events add up to."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcprism.events import Part
from tcprism.events._wire import MICROSECONDS_UNKNOWN
from tcprism.events.columns import BY_NAME
from tcprism.events.escape import escape, escape_text
from tcprism.events.names import ending_name, endpoint, errno_name, process
from tcprism.events.scopes import shown
from tcprism.web.growing import Growing
from tcprism.web.identity import Identity
from tcprism.web.sums import ADDERS, CAUSES

_TWO = (2,)  # the two ends
_KEPT_SHARE = 0.75  # when there is no more room
_FULL_SHARE = 0.9  # a batch may bring many at once
_SHORT_ID = 12  # digits of a container's id, as engines show it

Numbers = NDArray[np.intp]


class Connections:
    """A row a connection, whichever of its ends is seen, in the order in which they come.

    Side 0 is the end that was seen first. At most `limit` are kept, those with the latest events:
    `forgotten` counts the others, and `refused` sockets that there was no room for. A row's place
    changes when others are forgotten, its number does not.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.refused = 0
        self.forgotten = 0
        self.table = Growing(
            {
                "number": np.int64,
                "first_ns": np.int64,
                "last_ns": np.int64,
                "client": np.int8,  # the side that asked for the connection, -1: unknown
                "pid": (np.uint32, _TWO),
                "comm": ("S16", _TWO),
                "container": (np.int32, _TWO),  # a place in `containers`
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
        self.containers = [""]
        self.ends: list[tuple[str, str]] = []  # of side 0 and of side 1
        self._identity = Identity(self.table)

    def __len__(self) -> int:
        return len(self.table)

    def places(self, part: Part) -> tuple[Numbers, Numbers]:
        """Return the place of each record's connection, and the side that it was seen at.

        -1 stands for what is no connection, one that there is no room for, or one that cannot be
        told from another with the same ports.
        """
        return self._identity.places(part, self._make)

    def place(self, number: int) -> int | None:
        """Return where the connection of a number is, None if it was forgotten or never there."""
        place = int(np.searchsorted(self.table["number"], number))
        there = place < len(self) and self.table["number"][place] == number
        return place if there else None

    def _make(self, part: Part, row: int) -> int | None:
        """Make a connection of a record; return its place."""
        if not _is_connection(part.rows[row]):
            return None
        if len(self) >= self.limit:
            self.refused += 1
            return None
        place = len(self)
        self.table.grow(1)
        self.table["number"][place] = place + self.forgotten
        self.table["first_ns"][place] = part.rows["ts_ns"][row]
        self.table["client"][place] = -1
        self.table["srtt_us"][place] = MICROSECONDS_UNKNOWN
        one = part.take(slice(row, row + 1))
        local, remote = (
            endpoint(shown(one, f"{end}_ip")[0], BY_NAME[f"{end}_port"].to_list(one)[0])
            for end in ("local", "remote")
        )
        self.ends.append((local, remote))
        return place

    def make_room(self) -> Numbers | None:
        """Forget those that nothing was heard of for longest, if there is little room.

        Returns the new place of each, -1 for those that are gone; last, -1 for what has none.
        """
        if len(self) < _FULL_SHARE * self.limit:
            return None
        count = len(self) - int(_KEPT_SHARE * self.limit)
        gone = np.zeros(len(self), np.bool_)
        gone[np.argsort(self.table["last_ns"], kind="stable")[:count]] = True
        moved = np.append(np.where(gone, -1, np.cumsum(~gone) - 1), -1)
        kept = np.flatnonzero(~gone)
        self.table.keep(kept)
        self.ends = [self.ends[place] for place in kept.tolist()]
        self.forgotten += count
        self._identity.move(moved)
        return moved

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
        table["container"][numbers[owned], sides[owned]] = self._containers(part)[owned]
        adder = ADDERS.get(part.family)
        if adder:
            adder(table, rows, numbers, sides)

    def _containers(self, part: Part) -> NDArray[np.int32]:
        """Return the place in `containers` of each record's owner."""
        cgroups, back = np.unique(part.rows["cgroup_id"], return_inverse=True)
        places = np.zeros(len(cgroups), np.int32)
        for at, cgroup in enumerate(cgroups.tolist()):
            owner = part.context.owner(cgroup)
            name = escape_text(owner.container or (owner.container_id or "")[:_SHORT_ID])
            if name not in self.containers:
                self.containers.append(name)
            places[at] = self.containers.index(name)
        return places[back]

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
            "n": int(table["number"][number]),
            "first": int(table["first_ns"][number]),
            "last": int(table["last_ns"][number]),
            "ends": [self.ends[number][side] for side in sides],
            "owners": [self.owner(number, side) for side in sides],
            "seen": [
                bool(self._identity.has_socket(number, side) or table["pid"][number, side])
                for side in sides
            ],
            "containers": [self.containers[table["container"][number, side]] for side in sides],
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
        inside = (self.containers[place] for place in self.table["container"][number].tolist())
        return " ".join((*self.ends[number], *owners, *inside)).lower()


def _is_connection(record: np.void) -> bool:
    """Tell whether a record is of a connection: a listener has no other end."""
    return bool(record["local_port"] and record["remote_port"])
