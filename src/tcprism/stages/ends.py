"""The two ends of a connection, of which one or both are seen, and what passes between them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tcprism.events._wire import MICROSECONDS_UNKNOWN, MessageFlag
from tcprism.events.kinds import SENDS
from tcprism.protocols import Exchange
from tcprism.protocols.conversation import Conversation, Direction
from tcprism.stages.timeline import Marks, Timeline

Ends = tuple[bytes, bytes]
# Whose, which direction, and where its moments go.
Flow = tuple["Connection", Conversation, int, Direction, Timeline, Marks]
# An exchange, and where the moments of its request and of its response are.
Placed = tuple[Exchange, Timeline, Timeline]

# What they take of memory, about.
CONNECTION_BYTES = 5_000
MOMENT_BYTES = 32
_EXCHANGE_BYTES = 600

_UNPLACED_MAX = 8  # reads
_NEAR = 1 << 26  # bytes: more than the buffers of both ends hold


class Unplaced(NamedTuple):
    """A read of which the kernel did not tell where in the stream it was."""

    size: int
    data: bytes | None
    ts_ns: int
    tid: int


class View:
    """One end of a connection, as its process uses it; `side` is the direction that it sends."""

    __slots__ = ("closed", "connection", "flows", "head", "key", "pid", "side", "unplaced")

    def __init__(self, connection: Connection, side: int, key: int) -> None:
        self.connection = connection
        self.side = side
        self.key = key
        self.closed = False
        self.pid = -1
        self.head = b""  # of its latest message from another process than before
        self.unplaced: list[Unplaced] = []  # since the latest read that has its place
        self.flows = self._flow(side, 0), self._flow(1 - side, 1)  # what it writes, and reads

    def left(self, seq: int, size: int, unsent_us: int, unacked_us: int) -> None:
        """Take when bytes left that this end wrote; of responses nobody asks that."""
        connection, side = self.connection, self.side
        conversation = connection.conversation
        if conversation.client in (side, -1) and not connection.unseen:
            begin = conversation.offset(side, seq)
            connection.timelines[side].leave(begin, size, unsent_us, unacked_us)

    def arrived(self, seq: int, size: int, ts_ns: int) -> None:
        """Take when bytes arrived that this end will read."""
        connection, side = self.connection, 1 - self.side
        if not connection.unseen:
            begin = connection.conversation.offset(side, seq)
            connection.timelines[side].arrive(begin, size, ts_ns)

    def hold(self, size: int, data: bytes | None, record: np.void) -> None:
        """Keep a read until its place is known."""
        if len(self.unplaced) < _UNPLACED_MAX:
            self.unplaced.append(Unplaced(size, data, int(record["ts_ns"]), int(record["tid"])))

    def place(self, before: int) -> None:
        """Place the reads that were held, if they are all between the latest one and an offset.

        They are if they fill that, and one thread's follow one another.
        """
        held, self.unplaced = self.unplaced, []
        _, conversation, side, direction, _, marks = self.flows[1]
        begin = marks.reached
        if begin < 0 or before - begin != sum(read.size for read in held):
            return
        if len({read.tid for read in held}) > 1:
            return
        for size, data, ts_ns, _ in held:
            marks.add(begin + size, ts_ns, MICROSECONDS_UNKNOWN, begin)
            if begin + size > direction.at:
                conversation.feed(side, begin, size, data, ts_ns)
            begin += size

    def _flow(self, side: int, which: int) -> Flow:
        connection, conversation = self.connection, self.connection.conversation
        timeline, direction = connection.timelines[side], conversation.directions[side]
        marks = timeline.read if which else timeline.written
        return connection, conversation, side, direction, timeline, marks


class Connection:
    """A connection of which one or both ends are seen."""

    plain = True  # whether bytes are those of TCP

    __slots__ = (
        "_ends", "conversation", "ends", "finished", "plaintext", "timelines", "views", "waited",
    )  # fmt: skip

    def __init__(self, ends: Ends, conversation: Conversation) -> None:
        self.ends = ends
        self.conversation = conversation
        self.timelines = (Timeline(), Timeline())  # of the two directions
        self.views: list[View | None] = [None, None]
        self._ends = [0, 0]  # of the latest exchange's request and response
        self.finished: list[Exchange] = []  # that the client has not read to the end, if it is seen
        self.plaintext: Connection | None = None  # of TLS, if it is seen
        self.waited = False  # in vain for an end to write first

    @property
    def is_over(self) -> bool:
        """Whether nothing more can come of its messages."""
        return self.conversation.unknown and not (self.finished or self.plaintext)

    @property
    def closed(self) -> bool:
        """Whether all ends that were seen are closed."""
        return all(view is None or view.closed for view in self.views)

    @property
    def unseen(self) -> bool:
        """Whether nothing of it is read, nor will be."""
        return self.conversation.unknown and not self.plaintext

    @property
    def size(self) -> int:
        """About how many bytes of memory it takes."""
        talk = self.conversation
        moments = sum(one.count for one in self.timelines) if self.plain else 0
        waiting = len(talk.parser.waiting) if talk.parser else 0
        size = CONNECTION_BYTES + talk.kept + MOMENT_BYTES * moments
        size += sum(len(read.data or b"") for view in self.views if view for read in view.unplaced)
        size += _EXCHANGE_BYTES * (len(self.finished) + waiting)
        return size + (self.plaintext.size if self.plaintext else 0)

    def pass_on(self) -> None:
        """Take what the conversation has found."""
        if found := self.conversation.done:
            self.finished += found
            self._ends = [found[-1].end or 0, found[-1].response_end or 0]
            found.clear()

    def end(self, side: int, closed: bool = True) -> None:
        """Take note that nothing more comes of a direction, as it was `closed` or not recorded."""
        reader = self.views[1 - side]
        if reader and reader.unplaced:  # perhaps all that was written has been read
            reader.place(self.timelines[side].written.reached)
        self.conversation.end(side, closed)
        if self.plaintext:
            self.plaintext.end(side, closed)

    def placed(self, exchange: Exchange) -> Placed:
        """Return an exchange with offsets of the timelines that its moments are in."""
        side = self.conversation.client
        return exchange, self.timelines[side], self.timelines[1 - side]

    def shown(self, exchange: Exchange) -> Exchange:
        """Return an exchange as users see it."""
        return exchange

    def end_in_tcp(self, side: int, offset: int) -> int:
        """Return an offset in the stream of TCP, before which are bytes up to another."""
        return offset

    def is_near(self, record: np.void, side: int) -> bool:
        """Whether a message's place in the stream is near to what the other end has said of it.

        Two connections of different namespaces may have the same ends.
        """
        direction = side if record["kind"] in SENDS else 1 - side
        at = self.conversation.directions[direction].at
        if at < 0 or record["flags"] & MessageFlag.SEQ_UNKNOWN:
            return True
        return abs(self.conversation.offset(direction, int(record["seq"])) - at) < _NEAR

    def over(self, reached: int, least: int) -> int:
        """Return how many responses have come to their ends, at least so many, in TCP."""
        count, side = max(0, least), 1 - self.conversation.client
        for exchange in self.finished[count:] if count else self.finished:
            end = exchange.response_end or 0
            if (end if self.plain else self.end_in_tcp(side, end)) > reached:
                break
            count += 1
        return count

    def forget(self) -> None:
        """Forget the moments of bytes that no request needs any more."""
        if self.plaintext:
            self.plaintext.forget()
            return
        for timeline, needed in zip(self.timelines, self.needed(), strict=True):
            timeline.forget(needed)

    def needed(self) -> list[int]:
        """Return, of each direction, the offset before which no request needs anything.

        A parser may be in the middle of a request or a response that it has not told of: that
        begins behind the last one that it has.
        """
        talk = self.conversation
        left = [*self.finished, *talk.done, *talk.pending()]
        return [self._needed(side, left) for side in (0, 1)]

    def _needed(self, side: int, left: list[Exchange]) -> int:
        talk = self.conversation
        if talk.client < 0:
            return 0
        if not left and not talk.directions[side].rest:
            return talk.directions[side].at
        is_request = side == talk.client
        begins = [one.begin if is_request else one.response_begin for one in left]
        return min([self._ends[not is_request], *(one for one in begins if one is not None)])
