"""What follows from the headers of segments that came and went, one after the other.

Time stamps (RFC 7323), which need the options of segments, tell what was sent before what. Without
them less can be proven, and less is told.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tcprism.diagnosis.runs import during, highest_before, last_highest, waits
from tcprism.events._wire import ECN_SHIFT, EventKind, SegmentArrival
from tcprism.events.names import TcpFlag

LATE_ACK_US = 20_000  # half of what Linux waits for at least (TCP_DELACK_MIN)

Rows = NDArray[np.void]
Flags = NDArray[np.bool_]
Places = NDArray[np.intp]
Times = NDArray[np.float64]

ROW = np.dtype(
    [
        ("number", np.int64),
        ("ts_ns", np.int64),
        *((name, np.uint32) for name in ("seq", "end_seq", "ack", "window", "bytes")),
        *((name, np.uint32) for name in ("ts_val", "ts_ecr")),
        *((name, np.uint16) for name in ("flags", "segs")),
        *((name, np.uint8) for name in ("kind", "arrival")),
        *((name, np.bool_) for name in ("incoming", "alone", "stamped")),
        ("carried", np.uint16),  # of an earlier batch: what it still stands for, else 0
    ]
)
# What a row is carried for: a wait that it began, or the highest of a number.
CLOSED, _DATA, _SENT, _PROBE, _PROBED, _SHUT, _VALUE, _ACKED, _REACHED = (1 << b for b in range(9))

# They may say what was true before.
_OVERTAKEN = (SegmentArrival.OLD_ACK, SegmentArrival.OLD_SEQUENCE, SegmentArrival.DUPLICATE)
_NEW = (SegmentArrival.IN_ORDER, SegmentArrival.OUT_OF_ORDER)
_IN_ORDER = (SegmentArrival.IN_ORDER, SegmentArrival.UNKNOWN)
_NO_ACK = TcpFlag.SYN | TcpFlag.RST
_NO_PROBE = _NO_ACK | TcpFlag.FIN
_CE = 3  # RFC 3168


class Tally(Protocol):
    """Takes facts, of connections by their numbers."""

    def add(self, name: str, numbers: NDArray[np.int64], amounts: Any = 1) -> None:
        """Add to a fact."""

    def most(self, name: str, numbers: NDArray[np.int64], amounts: Times) -> None:
        """Note the highest of a fact."""

    def least(self, name: str, numbers: NDArray[np.int64], amounts: Times) -> Times:
        """Note the lowest of a fact; return what that is now."""


def told(rows: Rows, tally: Tally) -> Rows:
    """Add up what rows tell, sorted by connection and time; return those to come again.

    Those come with the next rows of their connections.
    """
    batch = _Told(rows, tally)
    batch.count()
    batch.windows()
    batch.own_acks()
    batch.acks_of_the_peer()
    batch.time_stamps()
    batch.keepalives()
    carried: Rows = rows[batch.stands != 0]
    carried["carried"] = batch.stands[batch.stands != 0]
    return carried


class _Told:
    """What rows tell; `stands` says what each is to be carried for."""

    def __init__(self, rows: Rows, tally: Tally) -> None:
        self._rows, self._tally = rows, tally
        self._groups = np.cumsum(np.r_[0, np.diff(rows["number"]) != 0]).astype(np.intp)
        self._new = rows["carried"] == 0
        self._in, self._out = rows["incoming"] & self._new, ~rows["incoming"] & self._new
        self._data = rows["bytes"] > 0
        self._acks = (rows["flags"] & TcpFlag.ACK != 0) & (rows["flags"] & _NO_ACK == 0)
        self.stands = np.zeros(len(rows), np.uint16)

    def count(self) -> None:
        """Count segments, and what ECN says of congestion (RFC 3168); a SYN only negotiates it."""
        rows, flags = self._rows, self._rows["flags"]
        later = flags & TcpFlag.SYN == 0
        ece, cwr = (later & (flags & flag != 0) for flag in (TcpFlag.ECE, TcpFlag.CWR))
        for name, those in (
            ("arrived", self._in),
            ("left", self._out),
            ("data_arrived", self._in & self._data),
            ("ce_arrived", self._in & (flags >> ECN_SHIFT == _CE)),
            ("ece_sent", self._out & ece),
            ("ece_arrived", self._in & ece),
            ("accurate_ecn", self._new & (flags & TcpFlag.AE != 0)),  # RFC 9768
        ):
            self._add(name, those, np.maximum(rows["segs"][those], 1))
        for name, those in (("cwr_sent", self._out & cwr), ("cwr_arrived", self._in & cwr)):
            self._add(name, those)  # the first of several has it (SKB_GSO_TCP_ECN)

    def windows(self) -> None:
        """The peer's window is closed from a zero that arrives to the next that is none."""
        arrival, window = self._rows["arrival"], self._rows["window"]
        said = self._in & self._acks & ~np.isin(arrival, _OVERTAKEN)
        over, begun = self._waits(CLOSED, said & (window == 0), said & (window > 0))
        self._took("zero_window", over, begun)
        self._add("zero_windows", over)

    def own_acks(self) -> None:
        """Data waits from its arrival until a segment leaves that acknowledges it."""
        rows = self._rows
        data = self._in & self._data & np.isin(rows["arrival"], _IN_ORDER)
        over, begun = self._waits(_DATA, data, self._out & self._acks)
        covers = _behind(rows["ack"][over], rows["end_seq"][begun])
        self._late("late_acks", over[covers], begun[covers], 0)

    def acks_of_the_peer(self) -> None:
        """Data that left alone waits for its acknowledgement, which echoes its time stamp.

        So what was sent again does not count. The least of these times is a round trip.
        """
        rows = self._rows
        numbers = np.where(rows["incoming"], rows["ack"], rows["end_seq"])
        above, known = self._highest(_REACHED, numbers, self._out & self._acks)
        data = self._out & self._data
        whole = self._in & self._acks & known & (above >= 0)
        over, begun = self._waits(
            _SENT,
            data & rows["alone"] & rows["stamped"],
            whole | data & ~rows["alone"],  # which makes it unclear what is waited for
        )
        answers = rows["incoming"][over] & rows["stamped"][over]
        answers &= rows["ts_ecr"][over] == rows["ts_val"][begun]
        over, begun = over[answers], begun[answers]
        least = self._tally.least("least_ack_us", rows["number"][over], self._times(over, begun))
        self._late("peer_late_acks", over, begun, least)
        probes = self._out & self._acks & ~self._data & (rows["kind"] == EventKind.TRANSMIT)
        self._probes = probes & (rows["flags"] & _NO_PROBE == 0) & known & (above == -1)

    def time_stamps(self) -> None:
        """Tell what was sent before a segment that came earlier, and what was sent in vain."""
        rows = self._rows
        numbers = np.where(rows["incoming"], rows["end_seq"], rows["ack"])
        above, acked = self._highest(_ACKED, numbers, self._out & self._acks)
        again = self._data & rows["incoming"] & acked & (above <= 0)
        stamped = rows["incoming"] & rows["stamped"]
        newer, known = self._highest(_VALUE, rows["ts_val"], stamped & self._new & ~again)
        known &= stamped & self._new
        new = self._data & np.isin(rows["arrival"], _NEW)
        self._add("reordered", known & new & (newer < 0))
        # Not a copy that the network made: no time stamp as new had come.
        again &= known & (newer > 0)
        self._add("acked_again", again, np.maximum(rows["segs"][again], 1))
        self._add("acked_again_bytes", again, rows["bytes"][again])
        probed = known & ~self._data & (newer > 0) & (rows["flags"] & _NO_PROBE == 0)
        self._probed = probed & (rows["arrival"] == SegmentArrival.OLD_SEQUENCE)

    def keepalives(self) -> None:
        """A keepalive begins a byte before what was sent last (RFC 9293, section 3.8.4).

        So does a probe of a closed window: while one may be closed, nothing is told.
        """
        rows = self._rows
        self._add("keepalives", self._probes)
        over, begun = self._waits(_PROBE, self._probes, self._in & self._acks)
        self._add("keepalives_answered", over)
        self._most("keepalives", over, begun)
        shut = self._out & self._acks & (rows["window"] == 0)
        probed = self._probed & ~self._during(_SHUT, shut, self._in & self._data)
        over, begun = self._waits(_PROBED, probed, self._out & self._acks)
        meant = rows["ack"][over] == rows["seq"][begun] + 1
        self._add("peer_keepalives", over[meant])
        self._most("peer_keepalives", over[meant], begun[meant])

    def _during(self, what: int, starts: Flags, ends: Flags) -> Flags:
        """Tell which rows are between a start and an end."""
        starts = starts | ((self._rows["carried"] & what) != 0)
        self.stands[waits(self._groups, starts, ends)[2]] |= np.uint16(what)
        return during(self._groups, starts, ends)

    def _waits(self, what: int, starts: Flags, ends: Flags) -> tuple[Places, Places]:
        """Return the ends and starts of waits; the starts of those that go on are carried."""
        carried = (self._rows["carried"] & what) != 0
        over, begun, going_on = waits(self._groups, starts | carried, ends)
        self.stands[going_on] |= np.uint16(what)
        return over, begun

    def _highest(
        self, what: int, numbers: NDArray[np.uint32], counts: Flags
    ) -> tuple[NDArray[np.int64], Flags]:
        """Return how far numbers are above the highest before them, and whether there is one."""
        counts = counts | ((self._rows["carried"] & what) != 0)
        self.stands[last_highest(self._groups, numbers, counts)] |= np.uint16(what)
        return highest_before(self._groups, numbers, counts)

    def _times(self, over: Places, begun: Places) -> Times:
        moments = self._rows["ts_ns"]
        times: Times = (moments[over] - moments[begun]) / 1000
        return times

    def _late(self, name: str, over: Places, begun: Places, usual_us: Any) -> None:
        """Note the waits that took as long as only a timer does, beyond what is usual."""
        late = self._times(over, begun) - usual_us >= LATE_ACK_US
        self._add(name, over[late])
        self._took(name, over[late], begun[late])

    def _took(self, name: str, over: Places, begun: Places) -> None:
        self._add(f"{name}_us", over, self._times(over, begun))
        self._most(name, over, begun)

    def _most(self, name: str, over: Places, begun: Places) -> None:
        numbers, times = self._rows["number"][over], self._times(over, begun)
        self._tally.most(f"{name}_longest_us", numbers, times)

    def _add(self, name: str, which: Flags | Places, amounts: Any = 1) -> None:
        self._tally.add(name, self._rows["number"][which], amounts)


def _behind(one: NDArray[np.uint32], other: NDArray[np.uint32]) -> Flags:
    """Tell which sequence numbers are not before others (RFC 9293, section 3.4)."""
    behind: Flags = (one - other).view(np.int32) >= 0
    return behind
