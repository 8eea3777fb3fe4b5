"""Requests: each with its response, its time split into parts, and what TCP did to it.

The bytes of messages are put in order by their sequence numbers and read by the protocol's parser.
When bytes were written, left, were acknowledged, sent again and read follows from the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from tcprism.events import Batch, Part
from tcprism.events._wire import SocketSource
from tcprism.events.ledger import Account, Entry
from tcprism.events.part import Rows
from tcprism.protocols import Protocol
from tcprism.protocols.conversation import Conversation
from tcprism.protocols.known import protocols as known_protocols
from tcprism.stages import StatefulStage
from tcprism.stages.answered import MOMENTS, NEVER, Answered, answered, answered_together
from tcprism.stages.ends import CONNECTION_BYTES, MOMENT_BYTES, Connection, View
from tcprism.stages.happened import (
    ACKED,
    ARRIVED,
    DECRYPTED,
    ENCRYPTED,
    READ,
    REPEATED,
    UNPLACED,
    WHAT,
    happened,
    payload,
    payloads,
    relevant,
)
from tcprism.stages.open_connections import OpenConnections
from tcprism.stages.plaintext import Call, Plaintext
from tcprism.stages.request_rows import request_part
from tcprism.stages.sampling import ALL, is_sampled

CONNECTIONS_MAX = 65_536
FINISHED_MAX = 4_096  # responses of a connection that its client was not seen to read
LET_GO_MAX = 4_096  # connections at once: events come meanwhile
ROOM = 448 << 20  # bytes that all connections may take, about
_MESSAGE_BYTES = 2 * MOMENT_BYTES  # that it adds besides its own: one may be of bytes not seen
_DONE = MOMENTS.index("done")
_SEQ, _HALF, _MASK = 1 << 32, 1 << 31, (1 << 32) - 1


class Requests(StatefulStage):
    """A stage that makes `request` events of messages; all other events pass.

    `protocols` are those to look for, None: all that are known, installed ones too. With `alone`,
    other events are left out. Of the kinds in `events.requests.NEEDS`, it must have send and recv,
    with payload; the others say more.
    """

    keeps = "connections whose requests are followed"

    def __init__(
        self,
        protocols: Sequence[Protocol] | None = None,
        *,
        show_values: bool = False,
        alone: bool = False,
    ) -> None:
        known = known_protocols() if protocols is None else tuple(protocols)
        self._begin = partial(Conversation, known, show_values)
        self._alone = alone
        self._connections = OpenConnections(self._begin)
        self._answered: list[Answered] = []
        self._now_ns = 0
        self._clock_offset_ns = 0
        self._made = 0
        self._gaps = 0
        self._evicted = 0
        self.room = ROOM
        self._left = 0  # of the room, at least
        self._sampling = 0  # of the latest messages
        self._recorded = ALL  # which sample of the connections is
        # Connections with a response that was read, and not seen to be written: the server's call
        # may return after the client's. Or of whose client nothing has been seen, though it may be
        # here. They wait from one tick to the one after the next.
        self._held: dict[int, Connection] = {}
        self._due: dict[int, Connection] = {}

    def __call__(self, batch: Batch) -> Batch:
        """Return the batch with the requests that have ended by now."""
        self._clock_offset_ns = batch.clock_offset_ns or self._clock_offset_ns
        return self._with_requests(batch, self.follow(batch))

    def follow(self, batch: Batch) -> list[Answered]:
        """Take a batch; return the requests that have ended by now."""
        chosen = [relevant(part) for part in batch.parts if part.family in WHAT]
        chosen = [part for part in chosen if len(part)]
        if chosen:
            self._sampling = max(int(part.rows["sampling"].max()) for part in chosen)
            followed = len(self._connections)
            self._take(chosen, Batch(chosen).permutation)
            self._left -= CONNECTION_BYTES * max(0, len(self._connections) - followed)
            for part in chosen:
                self._left -= int(part.payload_lengths().sum()) + _MESSAGE_BYTES * len(part)
            if (excess := len(self._connections) - CONNECTIONS_MAX) > 0:
                self._evict_oldest(excess)
            if self._left < 0:
                self._make_room()
        ended, self._answered = self._answered, []
        return ended

    def close(self) -> Batch:
        """Return the requests that nobody has answered or read to the end."""
        for connection in list(self._connections):
            self._over(connection, ended=connection.closed)
        return self._with_requests(Batch((), self._clock_offset_ns), self.follow(Batch(())))

    def tick(self, now_ns: int) -> Batch:
        """Take note of the time, from which ages follow; return what has been held long enough."""
        self._now_ns = now_ns
        return self._with_requests(Batch((), self._clock_offset_ns), self.release())

    def release(self) -> list[Answered]:
        """Return the requests that were held at the last call but one, and wait no longer."""
        for connection in self._due.values():
            if connection in self._connections:
                self._let_go(connection, hold=False)
                if connection.closed:
                    self._over(connection)
        self._due, self._held = self._held, {}
        return self.follow(Batch(()))

    def pending(self, most: int) -> Batch:
        """Return requests without a response so far, at most `most`; they remain pending.

        Those of connections that were seen first come first.
        """
        found: list[Answered] = []
        for connection in self._connections.streams():
            found += [
                answered(connection, exchange)
                for exchange in connection.conversation.pending()
                if exchange.answered and exchange.response_begin is None
            ]
            if len(found) >= most:
                break
        return Batch([request_part(found[:most], (), self._now_ns)] if found else [])

    def account(self) -> Account:
        """Return how many requests were made, and what was not understood."""
        missing = self._gaps + sum(one.conversation.gaps for one in self._connections.streams())
        counts = {"request_gaps": missing, "connections_evicted": self._evicted}
        remarks = []
        if missing:
            remarks.append(
                f"{missing:,} bytes were not captured in which requests may begin: some are missing"
                " (--payload 16384 takes most of each message)"
            )
        if self._evicted:
            remarks.append(
                f"{self._evicted:,} connections were forgotten, because more than"
                f" {CONNECTIONS_MAX:,} were open, or they took more than {self.room >> 20} MB, or"
                " memory was short: use a filter"
            )
        return Account((Entry.of_stage("request", self._made),), counts, tuple(remarks))

    def under_way(self) -> Iterator[Answered]:
        """Yield the requests that have not ended."""
        for connection in self._connections.streams():
            talk = connection.conversation
            for exchange in (*connection.finished, *talk.done, *talk.pending()):
                yield answered(connection, exchange)

    def _with_requests(self, batch: Batch, ended: list[Answered]) -> Batch:
        parts = [] if self._alone else list(batch.parts)
        if ended:
            part = request_part(ended, batch.parts, self._now_ns)
            part.rows["sampling"] = self._sampling
            parts.append(part)
            self._made += len(ended)
        return Batch(parts, batch.clock_offset_ns)

    def _take(self, parts: Sequence[Part], order: NDArray[np.intp]) -> None:
        """Follow what happened, in its order. What each event costs counts here."""
        said = [payloads(part) for part in parts]
        find = self._connections.views.get
        for what, key, seq, size, ts_ns, second, pid, length, place, row in happened(parts, order):
            view = find(key)
            if what > READ:
                self._besides(what, view, key, (seq, size, second, length), parts[place], row)
                continue
            if view is None or view.pid != pid or view.unplaced:
                view = self._used(view or key, parts[place].rows[row], pid, what)
            connection, conversation, side, direction, timeline, marks = view.flows[what]
            if conversation.unknown and connection.is_over:
                continue
            at = direction.at
            begin = seq + _SEQ if at < 0 else at + ((seq - at + _HALF) & _MASK) - _HALF
            end = begin + size
            if size and marks.add(end, ts_ns, second, begin) > timeline.many:
                connection.forget()
            if not size:
                connection.end(side)
            elif end > at:
                if size <= direction.skip and begin == at and not direction.held:
                    direction.pass_over(size)  # of a body, which need not be seen
                else:
                    conversation.feed(side, begin, size, said[place](row, length), ts_ns)
            if conversation.done or connection.finished or connection.plaintext:
                self._let_go(connection)

    def _used(self, view: View | int, record: np.void, pid: int, what: int) -> View:
        """Return the end that a message is of, with the reads before it in their places."""
        used = self._connections.used(view, record, pid)
        if used.unplaced and what == READ:
            used.place(used.connection.conversation.offset(1 - used.side, int(record["seq"])))
        return used

    def _besides(
        self,
        what: int,
        view: View | None,
        key: int,
        told: tuple[int, int, int, int],
        part: Part,
        row: int,
    ) -> None:
        """Take what is known of a connection besides its messages."""
        seq, size, second, third = told
        if what == ACKED:
            if view is not None:
                view.left(seq, size, second, third)
        elif what == ARRIVED:
            if view is not None:
                view.arrived(seq, size, second)
        elif what == UNPLACED and view is not None:
            view.hold(size, None if third < 0 else payload(part, row, third), part.rows[row])
        elif what in (ENCRYPTED, DECRYPTED):
            view = view or self._connections.view(part.rows[row], key)
            self._take_plaintext(view, what - ENCRYPTED, told, part, row)
        elif view is not None:
            self._more(view, what, (seq, size), part.rows, row)

    def _take_plaintext(
        self, view: View, what: int, told: tuple[int, int, int, int], part: Part, row: int
    ) -> None:
        """Take what a TLS library encrypted or decrypted."""
        carrier = view.connection
        plaintext = carrier.plaintext
        if not isinstance(plaintext, Plaintext):
            carrier.plaintext = plaintext = Plaintext(carrier, self._begin)
        for call in plaintext.taken(Call(view.side, bool(what), told, part, row)):
            self._read_plaintext(carrier, plaintext, call)

    def _read_plaintext(self, carrier: Connection, plaintext: Plaintext, call: Call) -> None:
        what, side = int(call.received), call.end ^ call.received
        seq, size, encrypted, length = call.told
        record = call.part.rows[call.row]
        ts_ns = int(record["ts_ns"].astype(np.int64))  # of a recording that may claim anything
        places = plaintext.places[side]
        places.go_on(int(record["stream_offset"]))
        begin = places.at
        places.add(size, carrier.conversation.offset(side, seq), encrypted)
        if record["socket_source"] == SocketSource.CIPHERTEXT:
            began_ns = max(ts_ns - int(record["duration_ns"]), NEVER)
            plaintext.mark(side, what, (begin, places.at), (began_ns, ts_ns))
        plaintext.feed(side, begin, size, payload(call.part, call.row, length), ts_ns)
        if plaintext.conversation.done or plaintext.finished:
            self._let_go(carrier)

    def _more(self, view: View, what: int, stretch: tuple[int, int], rows: Rows, row: int) -> None:
        """Take what became of the bytes of messages."""
        connection, (seq, size) = view.connection, stretch
        conversation, side = connection.conversation, view.side
        if what == REPEATED:
            if not connection.unseen:
                offset = conversation.offset(side, seq)
                connection.timelines[side].repeat(offset, offset + size, rows[row])
        elif self._connections.views.pop(view.key, None):
            view.closed = True
            client = conversation.client
            alone = client >= 0 and not connection.views[client] and not connection.waited
            if connection.closed and alone:  # the client's first call may return yet
                self._held[id(connection)] = connection
            elif connection.closed:
                self._over(connection)

    def _let_go(self, connection: Connection, hold: bool = True) -> None:
        """Let go the exchanges whose response the client has read and the server written.

        What has not been seen of that may come yet, if `hold`.
        """
        holds = self._let_go_of(connection, hold)
        if connection.plaintext:
            holds |= self._let_go_of(connection.plaintext, hold)
        if holds:
            self._held[id(connection)] = connection

    def _let_go_of(self, stream: Connection, hold: bool) -> bool:
        """Do so with TCP or with the plaintext; return whether some are held."""
        if stream.conversation.done:
            stream.pass_on()
        finished = stream.finished
        if not finished:
            return False
        stream.waited |= not hold
        needed, wanted = self._reached(stream)
        reached = wanted if hold else needed
        if over := stream.over(reached, len(finished) - FINISHED_MAX):
            found = answered_together(stream, finished[:over])
            for one in found:  # it is over, though it is not known when
                one.exchange.gap |= one.at[_DONE] == NEVER
            self._answered += found
            del finished[:over]
        return bool(finished) and reached < needed

    def _reached(self, connection: Connection) -> tuple[int, int]:
        """Return how far responses must have come, and how far it is worth waiting for them.

        Who reads them says when they are over, or who writes them if only that is seen. On a busy
        machine the client's call that sends the first request may return after the server has
        answered, and the server's that sends the first response after the client has read it.
        """
        client = connection.conversation.client
        timeline = connection.timelines[1 - client]
        written = timeline.written.ends[-1] if timeline.written.ends else -1
        if not connection.views[client]:
            return written, written if connection.waited else -1
        connection.waited = connection.waited and written < 0
        read = timeline.read.ends[-1] if timeline.read.ends else -1
        unseen = written < 0 and (connection.waited or not connection.views[1 - client])
        return read, read if unseen else min(read, written)

    def _make_room(self) -> None:
        """Forget the oldest connections, if all take too much."""
        kept = [(connection, connection.size) for connection in self._connections]
        total = sum(size for _, size in kept)
        if total > self.room * 3 // 4:  # so that the next look is far
            for connection, size in kept:
                if total <= self.room // 2:
                    break
                self._evict(connection)
                total -= size
        self._left = self.room - total

    def let_go(self) -> int:
        """Forget the older half of the connections, but not too many; return how many that is."""
        count = min((len(self._connections) + 1) // 2, LET_GO_MAX)
        self._evict_oldest(count)
        return count

    def _evict_oldest(self, count: int) -> None:
        for connection in [*islice(self._connections, count)]:
            self._evict(connection)

    def _evict(self, connection: Connection) -> None:
        """Forget a connection that goes on: it is joined again at its next message."""
        self._evicted += 1
        self._over(connection, ended=False, cut=True)

    def sample(self, sampling: int) -> None:
        """Take note that messages are recorded of one in 2^`sampling` connections from now on.

        What is under way in others has a gap: the rest of it will not come.
        """
        self._recorded = sampling
        for connection in list(self._connections):
            if not is_sampled(*connection.ends, sampling):
                self._over(connection, ended=False)

    def _over(self, connection: Connection, ended: bool = True, cut: bool = False) -> None:
        """Let go what is left of a connection, and forget it.

        `ended`: there is no more of it; `cut`: there is, and it will not be seen.
        """
        cut |= not is_sampled(*connection.ends, self._recorded)
        for side in (0, 1):
            connection.end(side, ended and not cut)
        for stream in filter(None, (connection, connection.plaintext)):
            conversation = stream.conversation
            if cut:
                conversation.leave()
            for exchange in (*stream.finished, *conversation.done, *conversation.pending()):
                one = answered(stream, exchange, ended)
                one.exchange.gap |= cut and one.at[_DONE] == NEVER
                self._answered.append(one)
            self._gaps += conversation.gaps
        self._held.pop(id(connection), None)
        self._connections.remove(connection)


def requests_of(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Yield the requests in all batches of a run."""
    stage = Requests(alone=True)
    for batch in batches:
        yield stage(batch)
        yield stage.tick(0)
    yield stage.close()
