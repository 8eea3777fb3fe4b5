"""Identity: which connection a record is of, also where the same ports are used again."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tcprism.diagnosis.ends import ends_keys, other_end_keys
from tcprism.events import Part
from tcprism.events._wire import EventKind
from tcprism.events.names import TcpFlag
from tcprism.web.growing import Growing

# Segments of a handshake, and drops, have the listener's socket.
_OWN_SOCKET = ("message", "delivery", "connection", "snapshot")
_WITH_FLAGS = ("segment", "loss")
_PRIME = np.uint64(0x9E3779B97F4A7C15)
_EACH = -2  # not a place and a side: each record may be of another connection
_EARLIER_MAX = 16  # connections with the same ports

Numbers = NDArray[np.intp]
Make = Callable[[Part, int], int | None]


class Identity:
    """Finds the connection of records: by the socket; where that tells nothing, by ports.

    Of connections that use the same ports in turn, a SYN has the one with its sequence number, and
    begins another if that is not of the latest. Anything else has the one during which it happened:
    what happened between two of them has none, as it may be of either.
    """

    def __init__(self, table: Growing) -> None:
        self.table = table
        self._known: dict[int, int] = {}  # a socket at its end -> 2 * place + side
        self._latest: dict[int, int] = {}  # an end -> 2 * place + side
        self._earlier: dict[int, list[int]] = {}  # an end -> the same, of those before
        self._sockets: list[list[int]] = []
        self._syns: list[list[int | None]] = []  # sequence numbers

    def has_socket(self, place: int, side: int) -> bool:
        """Tell whether the socket at an end has been seen."""
        return bool(self._sockets[place][side])

    def move(self, moved: Numbers) -> None:
        """Follow places to new ones; -1 are gone."""

        def after(code: int) -> int:
            place = int(moved[code >> 1])
            return 2 * place + (code & 1) if place >= 0 else -1

        for codes in (self._known, self._latest):
            found = {key: after(code) for key, code in codes.items()}
            codes.clear()
            codes.update((key, code) for key, code in found.items() if code >= 0)
        earlier = {key: list(map(after, codes)) for key, codes in self._earlier.items()}
        self._earlier = {
            key: kept for key, codes in earlier.items() if (kept := [c for c in codes if c >= 0])
        }
        stay = moved[:-1] >= 0
        self._sockets = [one for one, there in zip(self._sockets, stay, strict=True) if there]
        self._syns = [one for one, there in zip(self._syns, stay, strict=True) if there]

    def places(self, part: Part, make: Make) -> tuple[Numbers, Numbers]:
        """Return the place of each record's connection, -1: none, and the side it was seen at.

        `make` makes a connection of a record and returns its place, None if there is to be none.
        """
        rows = part.rows
        own, other = ends_keys(rows), other_end_keys(rows)
        # A request has the client's ends, and may have the server's socket.
        sockets = rows["socket"].astype(np.uint64) * np.uint64(part.family != "request")
        keys = own ^ (sockets * _PRIME)
        finder = _Finder(self, part, (own, other, sockets, keys), make)
        groups = keys.copy()
        if part.family in _WITH_FLAGS:  # each SYN is looked at alone
            syns = np.flatnonzero(rows["flags"] & TcpFlag.SYN)
            groups[syns] ^= (syns + 1).astype(np.uint64) * _PRIME
        distinct, first, back = np.unique(groups, return_index=True, return_inverse=True)
        found = np.empty(len(distinct), np.intp)
        for at in np.argsort(first).tolist():  # in the order in which they came
            found[at] = finder.find(int(first[at]))
        codes = found[back]
        for row in np.flatnonzero(codes == _EACH).tolist():
            codes[row] = finder.during(row)
        return np.where(codes < 0, -1, codes >> 1), codes & 1

    def latest(self, end: int) -> list[int]:
        """Return the connections of an end, the latest first."""
        code = self._latest.get(end)
        return [] if code is None else [code, *reversed(self._earlier.get(end, ()))]

    def known(self, key: int) -> int | None:
        """Return the connection of a socket at its end, if it is known."""
        return self._known.get(key)

    def take_socket(self, code: int, socket: int, key: int) -> bool:
        """Note the socket of an end; return whether it is that of the connection."""
        sockets, side = self._sockets[code >> 1], code & 1
        if sockets[side] not in (0, socket):
            return False
        sockets[side] = socket
        self._known[key] = code
        return True

    def syn(self, code: int) -> int | None:
        """Return the sequence number of an end's SYN, if it is known."""
        return self._syns[code >> 1][code & 1]

    def take_syn(self, code: int, seq: int) -> None:
        """Note the sequence number of an end's SYN."""
        self._syns[code >> 1][code & 1] = seq

    def is_over_at(self, code: int, moment: int) -> bool:
        """Tell whether a connection had ended by some time."""
        place = code >> 1
        over = self.table["closed"][place].any() or self.table["failed"][place]
        return bool(over) and moment > int(self.table["last_ns"][place])

    def add(self, place: int, ends: tuple[int, int]) -> int:
        """Take a new connection."""
        for side, end in enumerate(ends):
            if end in self._latest:
                earlier = self._earlier.setdefault(end, [])
                earlier.append(self._latest[end])
                del earlier[:-_EARLIER_MAX]
            self._latest[end] = 2 * place + side
        self._sockets.append([0, 0])
        self._syns.append([None, None])
        return 2 * place


class _Finder:
    """Finds the connections of the records of one part."""

    def __init__(
        self, identity: Identity, part: Part, keys: tuple[NDArray[np.uint64], ...], make: Make
    ) -> None:
        self._identity = identity
        self._part = part
        self._own, self._other, self._sockets, self._keys = keys
        self._make = make

    def find(self, row: int) -> int:
        """Return the connection of a record and its side, -1: none, _EACH: look at each alone."""
        identity, family = self._identity, self._part.family
        key, end, socket = int(self._keys[row]), int(self._own[row]), int(self._sockets[row])
        code = identity.known(key)
        if code is not None:
            return code
        if family in _WITH_FLAGS and self._part.rows["flags"][row] & TcpFlag.SYN:
            return self._of_syn(row)
        codes = identity.latest(end)
        if family in _OWN_SOCKET and socket:
            if codes and identity.take_socket(codes[0], socket, key):
                return codes[0]
            code = self._made(row)
            if code >= 0:
                identity.take_socket(code, socket, key)
            return code
        if not codes:
            return self._made(row)
        return codes[0] if len(codes) == 1 or family == "request" else _EACH

    def _made(self, row: int) -> int:
        place = self._make(self._part, row)
        if place is None:
            return -1
        return self._identity.add(place, (int(self._own[row]), int(self._other[row])))

    def _of_syn(self, row: int) -> int:
        """Return the connection of a SYN: by its sequence number, or by when others ended."""
        record, identity = self._part.rows[row], self._identity
        seq, moment = int(record["seq"]), int(record["ts_ns"])
        from_peer = int(_came_in(self._part, row))  # who sent it chose the number
        codes = identity.latest(int(self._own[row]))
        for code in codes:
            if identity.syn(code ^ from_peer) == seq:
                return code
        last = identity.table["last_ns"]
        before = (code for code in codes[1:] if moment > int(last[code >> 1]))
        earlier = next(before, None)
        code = (
            codes[codes.index(earlier) - 1] if earlier is not None else codes[-1] if codes else -1
        )
        if (
            code < 0
            or identity.syn(code ^ from_peer) is not None
            or (identity.is_over_at(code, moment))
        ):
            if codes and code != codes[0]:
                return -1  # of one that was not seen
            code = self._made(row)
        if code >= 0:
            identity.take_syn(code ^ from_peer, seq)
        return code

    def during(self, row: int) -> int:
        """Return the connection during which something happened, -1: that may be either of two."""
        moment, table = int(self._part.rows["ts_ns"][row]), self._identity.table
        codes = self._identity.latest(int(self._own[row]))
        for code in codes:
            if moment >= int(table["first_ns"][code >> 1]):
                latest = code == codes[0]
                return code if latest or moment <= int(table["last_ns"][code >> 1]) else -1
        return -1


def _came_in(part: Part, row: int) -> bool:
    """Tell whether a segment came from the peer."""
    record = part.rows[row]
    if part.family == "loss":
        return part.rows["kind"][row] == EventKind.DROP and not record["outgoing"]
    return bool(record["kind"] == EventKind.RECEIVE)
