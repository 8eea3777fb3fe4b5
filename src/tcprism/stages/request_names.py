"""Request names: says of each message and segment which requests and responses begin in it."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import attrgetter

import numpy as np

from tcprism.events import Batch, Part
from tcprism.events._wire import EventKind, MessageFlag
from tcprism.events.batch import joined
from tcprism.events.columns import MESSAGES
from tcprism.events.escape import escape_text
from tcprism.events.requests import NAMES, Said, asked
from tcprism.protocols import REQUEST, RESPONSE, Exchange
from tcprism.stages import StatefulStage
from tcprism.stages.answered import Answered
from tcprism.stages.ends import Ends
from tcprism.stages.requests import Requests

HOLD_NS = 200_000_000  # a segment leaves before the call that wrote its bytes returns
CONNECTIONS_MAX = 10_000
KEPT = 16  # requests of a connection that may be sent again after their response
NAME_MAX = 120  # characters

_HALF, _MASK = 1 << 31, (1 << 32) - 1


@dataclass(slots=True)
class _Connection:
    """The requests of a connection that may still be asked about, by the offset of their first."""

    client: bytes
    numbered: int = 0
    exchanges: dict[int, tuple[int, Exchange]] = field(default_factory=dict)


class RequestNames(StatefulStage):
    """Derives NAMES of messages, segments and losses; holds events until their names are known.

    It needs send and recv with payload: events pass at once as long as none has any.
    """

    def __init__(self) -> None:
        self._stage = Requests()
        self._connections: OrderedDict[Ends, _Connection] = OrderedDict()
        self._ended: list[Answered] = []
        self._held: list[Batch] = []
        self._payload = False

    def __call__(self, batch: Batch) -> Batch:
        """Return the events before that have their names by now."""
        self._payload = self._payload or any(
            part.family in MESSAGES and part.payload is not None for part in batch.parts
        )
        if not self._payload or not len(batch):
            return batch
        self._ended += self._stage.follow(batch)
        self._held.append(batch)
        return self.tick(_newest(batch))

    def tick(self, now_ns: int) -> Batch:
        """Return the events that have been held for long enough."""
        self._ended += self._stage.release()
        many = 0
        while many < len(self._held) and _newest(self._held[many]) + HOLD_NS <= now_ns:
            many += 1
        due, self._held = self._held[:many], self._held[many:]
        return self._named(due) if due else Batch(())

    def close(self) -> Batch:
        """Return the events still held."""
        held, self._held = self._held, []
        return self._named(held) if held else Batch(())

    def _named(self, batches: Sequence[Batch]) -> Batch:
        self._take()
        index: dict[Ends, tuple[list[Said], list[Said]]] = {}
        whole = joined(*batches)
        parts = [self._name(part, index) for part in whole.parts]
        self._forget()
        return Batch(parts, whole.clock_offset_ns)

    def _take(self) -> None:
        """Number the requests that are new, in the order of the stream."""
        found = [*self._ended, *self._stage.under_way()]
        self._ended = []
        found.sort(key=lambda one: _begin(one.exchange))
        for one in found:
            view = one.client or one.server
            assert view
            if not (begin := _begin(one.exchange)):
                continue  # encrypted, and where is not known
            ends = view.connection.ends
            side = one.client.side if one.client else 1 - view.side
            known = self._connections.get(ends)
            if known is None or known.client != ends[side]:
                known = self._connections[ends] = _Connection(ends[side])
            self._connections.move_to_end(ends)
            number = known.exchanges.get(begin, (0, None))[0]
            if not number and one.exchange.begin is not None:
                known.numbered += 1
                number = known.numbered
            known.exchanges[begin] = number, one.exchange

    def _forget(self) -> None:
        """Forget what is over, but for the latest of each connection."""
        while len(self._connections) > CONNECTIONS_MAX:
            self._connections.popitem(last=False)
        for known in self._connections.values():
            if len(known.exchanges) > KEPT:
                old = [*known.exchanges.items()][:-KEPT]
                for begin, (_, exchange) in old:
                    if exchange.response_end is not None or not exchange.answered:
                        del known.exchanges[begin]

    def _name(self, part: Part, index: dict[Ends, tuple[list[Said], list[Said]]]) -> Part:
        """Return a part with what its events carry."""
        if part.family not in ("message", "segment", "loss"):
            return part
        rows = part.rows
        names = np.full(len(part), None, object)
        known = rows["bytes"] > 0
        if part.family == "message":
            known &= (rows["flags"] & int(MessageFlag.SEQ_UNKNOWN)) == 0
        local, remote = _ends(part, "local"), _ends(part, "remote")
        facts = (part.outgoing(), rows["seq"], rows["bytes"])
        columns = [column.tolist() for column in (*facts, known)]
        again = (rows["kind"] == EventKind.RETRANSMIT).tolist()
        for place, (here, there, out, seq, size, is_known, repeats) in enumerate(
            zip(local, remote, *columns, again, strict=True)
        ):
            ends = (there, here) if here > there else (here, there)
            connection = self._connections.get(ends)
            if connection is None or not is_known:
                continue
            if ends not in index:
                index[ends] = _sorted(connection)
            writer = here if out else there
            side = REQUEST if writer == connection.client else RESPONSE
            if said := _carried(index[ends][side], seq, size, repeats):
                names[place] = said
        return part.derive(**{NAMES: np.ma.MaskedArray(names, [name is None for name in names])})


def _newest(batch: Batch) -> int:
    return max(int(part.rows["ts_ns"].max()) for part in batch.parts if len(part))


def _begin(exchange: Exchange) -> int:
    return (exchange.response_begin or 0) if exchange.begin is None else exchange.begin


def _ends(part: Part, side: str) -> list[bytes]:
    """Return an address and a port of each record, as `stages.requests` has them."""
    rows = part.rows
    addresses = np.ascontiguousarray(rows[f"{side}_ip"])
    ports = np.ascontiguousarray(rows[f"{side}_port"]).view(np.uint8).reshape(len(rows), 2)
    both = np.concatenate([addresses, ports], axis=1)
    return [row.tobytes() for row in both]


def _sorted(connection: _Connection) -> tuple[list[Said], list[Said]]:
    """Return requests and responses, each in the order of their stream, with absolute offsets."""
    requests, responses = [], []
    for number, exchange in connection.exchanges.values():
        what = escape_text(asked(exchange.protocol, exchange.method, exchange.resource))
        what = what if len(what) <= NAME_MAX else f"{what[: NAME_MAX - 3]}..."
        if exchange.begin is None:
            responses.append(_said(exchange.response_begin, exchange, RESPONSE, what))
            continue
        what = f"{what} (request {number})"
        requests.append(_said(exchange.begin, exchange, REQUEST, what))
        if exchange.response_begin:
            status = f": {escape_text(exchange.status)}" if exchange.status else ""
            text = f"the response to {what}{status}"
            responses.append(_said(exchange.response_begin, exchange, RESPONSE, text))
    by_begin = attrgetter("begin")
    return sorted(requests, key=by_begin), sorted(responses, key=by_begin)


def _said(begin: int | None, exchange: Exchange, side: int, text: str) -> Said:
    end, told = (
        (exchange.end, exchange.request_bytes)
        if side == REQUEST
        else (exchange.response_end, exchange.response_bytes)
    )
    return Said(begin or 0, end if told is None else None, text)


def _carried(those: list[Said], seq: int, size: int, repeats: bool) -> tuple[Said, ...]:
    """Return what begins in an event's bytes; if it repeats them, also what began before."""
    if not those:
        return ()
    near = those[-1].begin
    first = near + ((seq - near + _HALF) & _MASK) - _HALF
    place = bisect_right(those, (first,))
    if repeats and place:
        place -= 1  # it may begin before
    found = []
    for begin, end, text in those[place:]:
        if begin >= first + size:
            break
        if begin >= first or (end or 0) > first:
            found.append(Said(begin - first, None if end is None else end - first, text))
    return tuple(found)
