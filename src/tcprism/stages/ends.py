"""The two ends of a connection, of which one or both are seen, and what passes between them."""

from __future__ import annotations

from tcprism.protocols import Exchange
from tcprism.protocols.conversation import Conversation
from tcprism.stages.timeline import Timeline

Ends = tuple[bytes, bytes]


class View:
    """One end of a connection, as its process uses it; `side` is the direction that it sends."""

    __slots__ = ("closed", "connection", "head", "key", "pid", "side")

    def __init__(self, connection: Connection, side: int, key: int) -> None:
        self.connection = connection
        self.side = side
        self.key = key
        self.closed = False
        self.pid = -1
        self.head = b""  # of its latest message from another process than before


class Connection:
    """A connection of which one or both ends are seen."""

    __slots__ = ("_ends", "conversation", "ends", "finished", "timelines", "views")

    def __init__(self, ends: Ends, conversation: Conversation) -> None:
        self.ends = ends
        self.conversation = conversation
        self.timelines = (Timeline(), Timeline())  # of the two directions
        self.views: list[View | None] = [None, None]
        self._ends = [0, 0]  # of the latest exchange's request and response
        self.finished: list[Exchange] = []  # that the client has not read to the end, if it is seen

    def pass_on(self) -> None:
        """Take what the conversation has found."""
        if found := self.conversation.done:
            self.finished += found
            self._ends = [found[-1].end or 0, found[-1].response_end or 0]
            found.clear()

    def forget(self) -> None:
        """Forget the moments of bytes that no request needs any more.

        A parser may be in the middle of a request or a response that it has not told of: that
        begins behind the last one that it has.
        """
        talk = self.conversation
        left = [*self.finished, *talk.done, *talk.pending()]
        for side, timeline in enumerate(self.timelines):
            is_request = side == talk.client
            needed = [self._ends[not is_request]]
            begins = [one.begin if is_request else one.response_begin for one in left]
            needed += [begin for begin in begins if begin is not None]
            if not left and not talk.directions[side].rest:
                needed = [talk.directions[side].at]
            timeline.forget(min(needed) if talk.client >= 0 else 0)
