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

    __slots__ = ("conversation", "ends", "finished", "timelines", "views")

    def __init__(self, ends: Ends, conversation: Conversation) -> None:
        self.ends = ends
        self.conversation = conversation
        self.timelines = (Timeline(), Timeline())  # of the two directions
        self.views: list[View | None] = [None, None]
        self.finished: list[Exchange] = []  # that the client has not read to the end, if it is seen
