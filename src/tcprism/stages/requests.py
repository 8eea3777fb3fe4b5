"""Requests: each with its response, its time split into parts, and what TCP did to it.

The bytes of messages are put in order by their sequence numbers and read by the protocol's parser.
When bytes were written, left, were acknowledged, sent again and read follows from the same numbers.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from tcprism.events import Batch, Part
from tcprism.events._wire import DURATION_UNKNOWN, EVENT, EventKind, MessageFlag
from tcprism.events.connection import connection_keys
from tcprism.events.ledger import Account, Entry
from tcprism.events.part import Rows
from tcprism.protocols import Protocol
from tcprism.protocols.conversation import Conversation
from tcprism.protocols.known import PROTOCOLS
from tcprism.stages import StatefulStage
from tcprism.stages.ends import Connection, Ends, View
from tcprism.stages.request_rows import Answered, answered, request_part

CONNECTIONS_MAX = 65_536
_NEAR = 1 << 26  # bytes: more than the buffers of both ends hold

_NO_STREAM = int(MessageFlag.SEQ_UNKNOWN | MessageFlag.PEEK)
_SEND, _RECV = int(EventKind.SEND), int(EventKind.RECV)
_CLOSE = int(EventKind.CLOSE)

Handle = Callable[[int], None]


class Requests(StatefulStage):
    """A stage that makes `request` events of messages; all other events pass.

    `protocols` are those to look for, None: all that are known. With `alone`, other events are left
    out. It needs the kinds send and recv with their payload; acked, retransmit, connect, accept and
    close say more.
    """

    def __init__(
        self,
        protocols: Sequence[Protocol] | None = None,
        *,
        show_values: bool = False,
        alone: bool = False,
    ) -> None:
        self._protocols = PROTOCOLS if protocols is None else tuple(protocols)
        self._show_values = show_values
        self._alone = alone
        self._views: dict[int, View] = {}
        self._connections: OrderedDict[int, Connection] = OrderedDict()  # by id(), oldest first
        self._by_ends: dict[Ends, list[Connection]] = {}
        self._answered: list[Answered] = []
        self._made = 0
        self._gaps = 0
        self._evicted = 0

    def __call__(self, batch: Batch) -> Batch:
        """Return the batch with the requests that have ended by now."""
        handlers = [self._handler(part) for part in batch.parts]
        if any(handlers):
            for place, row in zip(*(order.tolist() for order in batch.order()), strict=True):
                if handle := handlers[place]:
                    handle(row)
        return self._with_requests(batch)

    def close(self) -> Batch:
        """Return the requests that nobody has answered or read to the end."""
        for connection in list(self._connections.values()):
            self._over(connection)
        return self._with_requests(Batch(()))

    def account(self) -> Account:
        """Return how many requests were made, and what was not understood."""
        counts = {"request_gaps": self._gaps, "connections_evicted": self._evicted}
        return Account((Entry.of_stage("request", self._made),), counts)

    def _with_requests(self, batch: Batch) -> Batch:
        parts = [] if self._alone else list(batch.parts)
        if self._answered:
            parts.append(request_part(self._answered, batch.parts))
            self._made += len(self._answered)
            self._answered = []
        return Batch(parts, batch.clock_offset_ns)

    def _handler(self, part: Part) -> Handle | None:
        makers = {
            "message": self._messages,
            "delivery": self._deliveries,
            "loss": self._losses,
            "connection": self._ends,
        }
        make = makers.get(part.family)
        return make(part) if make and len(part) else None

    def _messages(self, part: Part) -> Handle:
        rows = part.rows
        keys = connection_keys(rows).tolist()
        in_stream = ((rows["flags"] & _NO_STREAM) == 0) & (rows["error"] == 0)
        stream, sends = in_stream.tolist(), (rows["kind"] == _SEND).tolist()
        columns = [rows[name].tolist() for name in ("seq", "bytes", "ts_ns", "pid")]
        seqs, sizes, moments, pids = columns
        seconds = np.where(rows["kind"] == _SEND, _begun(rows), rows["unread_us"]).tolist()
        lengths = part.payload_lengths().tolist()
        payload, views = part.payload, self._views

        def handle(row: int) -> None:
            if not stream[row]:
                return
            view = views.get(keys[row]) or self._view(part, row, keys[row])
            if view.pid != pids[row]:
                view.pid = pids[row]
                view.head = rows[row].tobytes()[: EVENT.itemsize]
            connection, size = view.connection, sizes[row]
            conversation = connection.conversation
            side = view.side if sends[row] else 1 - view.side
            if not size:
                conversation.end(side)
            else:
                offset = conversation.offset(side, seqs[row])
                end = offset + size
                timeline = connection.timelines[side]
                marks = timeline.written if sends[row] else timeline.read
                marks.add(end, moments[row], seconds[row])
                if end > conversation.directions[side].at and not conversation.unknown:
                    length = lengths[row]
                    data = payload[row, :length].tobytes() if length else b""  # type: ignore[index]
                    conversation.feed(side, offset, size, data, moments[row])
            self._take(connection)

        return handle

    def _take(self, connection: Connection) -> None:
        """Take what the conversation has found, and let go what has ended."""
        if found := connection.conversation.done:
            connection.finished += found
            found.clear()
        if connection.finished:
            self._emit(connection)

    def _view(self, part: Part, row: int, key: int) -> View:
        """Find the connection that an end belongs to, which the other end may have begun."""
        record = part.rows[row]
        local = record["local_ip"].tobytes() + record["local_port"].tobytes()
        remote = record["remote_ip"].tobytes() + record["remote_port"].tobytes()
        side = int(local > remote)
        ends = (remote, local) if side else (local, remote)
        known = self._by_ends.setdefault(ends, [])
        for connection in known:
            if connection.views[side] is None and _near(connection, record, side):
                break
        else:
            connection = Connection(ends, Conversation(self._protocols, self._show_values))
            known.append(connection)
            self._connections[id(connection)] = connection
            if len(self._connections) > CONNECTIONS_MAX:
                self._evicted += 1
                self._over(next(iter(self._connections.values())))
        view = View(connection, side, key)
        connection.views[side] = view
        self._views[key] = view
        return view

    def _deliveries(self, part: Part) -> Handle:
        rows = part.rows
        keys = connection_keys(rows).tolist()
        ends = (rows["seq"] + rows["bytes"]).tolist()
        unsent, unacked = rows["unsent_us"].tolist(), rows["unacked_us"].tolist()

        def handle(row: int) -> None:
            if view := self._views.get(keys[row]):
                connection = view.connection
                end = connection.conversation.offset(view.side, ends[row])
                connection.timelines[view.side].left.add(end, unsent[row], unacked[row])

        return handle

    def _losses(self, part: Part) -> Handle:
        rows = part.rows
        keys = connection_keys(rows).tolist()

        def handle(row: int) -> None:
            record = rows[row]
            if record["kind"] != EventKind.RETRANSMIT or record["error"]:
                return
            if view := self._views.get(keys[row]):
                connection = view.connection
                begin = connection.conversation.offset(view.side, int(record["seq"]))
                connection.timelines[view.side].repeat(begin, begin + int(record["bytes"]), record)

        return handle

    def _ends(self, part: Part) -> Handle:
        keys = connection_keys(part.rows).tolist()
        kinds = part.rows["kind"].tolist()

        def handle(row: int) -> None:
            if kinds[row] == _CLOSE and (view := self._views.pop(keys[row], None)):
                view.closed = True
                if all(other is None or other.closed for other in view.connection.views):
                    self._over(view.connection)

        return handle

    def _emit(self, connection: Connection) -> None:
        """Let go the exchanges whose response the client has read, or the server written."""
        conversation = connection.conversation
        client = conversation.client
        timeline = connection.timelines[1 - client]
        marks = timeline.read if connection.views[client] else timeline.written
        reached = marks.ends[-1] if marks.ends else -1
        finished = connection.finished
        while finished and (finished[0].response_end or 0) <= reached:
            self._answered.append(answered(connection, finished.pop(0)))

    def _over(self, connection: Connection) -> None:
        """Let go what is left of a connection, and forget it."""
        conversation = connection.conversation
        for side in (0, 1):
            conversation.end(side)
        for exchange in (*connection.finished, *conversation.done, *conversation.pending()):
            self._answered.append(answered(connection, exchange))
        self._gaps += conversation.gaps
        self._connections.pop(id(connection), None)
        known = self._by_ends[connection.ends]
        known.remove(connection)
        if not known:
            del self._by_ends[connection.ends]
        for view in connection.views:
            if view:
                self._views.pop(view.key, None)


def _begun(rows: Rows) -> NDArray[np.uint64]:
    """Return when calls began, or returned where that is not known."""
    durations = np.where(rows["duration_ns"] == DURATION_UNKNOWN, 0, rows["duration_ns"])
    begun: NDArray[np.uint64] = rows["ts_ns"] - durations
    return begun


def _near(connection: Connection, record: np.void, side: int) -> bool:
    """Whether a message's place in the stream is near to what the other end has said of it.

    Two connections of different namespaces may have the same ends.
    """
    direction = side if record["kind"] == _SEND else 1 - side
    at = connection.conversation.directions[direction].at
    if at < 0:
        return True
    return abs(connection.conversation.offset(direction, int(record["seq"])) - at) < _NEAR
