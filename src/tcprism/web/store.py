"""Store: what batches tell, kept for the page. The same for live events and for a recording."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tcprism.events import Batch, Part
from tcprism.events.batch import size_of
from tcprism.events.facts import Facts
from tcprism.events.ledger import Account, Ledger
from tcprism.sinks import Sink
from tcprism.web.connections import Connections
from tcprism.web.overview import Overview
from tcprism.web.requests import Requests

_CONNECTION_BYTES = 1000  # of memory a connection, about
_ORDER = ("connection", "message")  # they tell sockets apart that use the same ports in turn
_REQUEST_BYTES = 500  # of memory a request, about


class Kept(NamedTuple):
    """Events of a family, with the connection of each and the side that it was seen at.

    Those with the same `batch` came together.
    """

    batch: int
    part: Part
    numbers: NDArray[np.intp]
    sides: NDArray[np.intp]
    size: int


class Cost(NamedTuple):
    """What tcprism costs: seconds of CPU time since the start, and shares of one CPU lately.

    Those of its BPF programs are None where the kernel does not measure them.
    """

    at: float
    cpu: float
    bpf: float | None
    cpu_share: float | None = None
    bpf_share: float | None = None


def measured(before: Cost | None, run_time: float | None) -> Cost:
    """Return the cost until now, with shares since a measurement before."""
    now = Cost(time.monotonic(), time.process_time(), run_time)
    if before is None or now.at <= before.at:
        return now
    passed = now.at - before.at
    bpf = None if now.bpf is None or before.bpf is None else (now.bpf - before.bpf) / passed
    return now._replace(cpu_share=(now.cpu - before.cpu) / passed, bpf_share=bpf)


class Store(Sink):
    """Takes batches; keeps requests, connections, and other events as far as `memory` bytes allow.

    Half of it is for requests, three eighths are for other events, one for connections: the latest
    of each.

    `run_time`, if it is set, returns how long BPF programs have run, in seconds, and `cost` is
    measured with each account. `change` grows with each batch that has something new, `ended` says
    that nothing more comes, and `forgotten` counts events that had to make room. Hold `lock` while
    reading.
    """

    def __init__(self, memory: int) -> None:
        self.lock = threading.RLock()
        self.connections = Connections(0)  # how many there may be follows from the room
        self.requests = Requests(0)
        self.overview = Overview()
        self.facts: Facts | None = None
        self.ledger = Ledger(())
        self.trouble: tuple[str, ...] = ()
        self.change = 0
        self.events = 0
        self.ended = False
        self.forgotten = 0
        self.first_ns = 0
        self.last_ns = 0
        self.clock_offset_ns = 0
        self.run_time: Callable[[], float | None] | None = None
        self.cost: Cost | None = None
        self._size = 0
        self._kept: deque[Kept] = deque()
        self.room = memory

    @property
    def room(self) -> int:
        """How many bytes it may take; what is kept makes room as more comes."""
        return self._room

    @room.setter
    def room(self, memory: int) -> None:
        self._room = memory
        self.connections.limit = memory // 8 // _CONNECTION_BYTES
        self.requests.limit = memory // 2 // _REQUEST_BYTES
        self._memory = memory * 3 // 8

    def open(self, facts: Facts) -> None:
        """Take what is known from the start."""
        self.facts = facts

    def write(self, batch: Batch) -> None:
        """Take a batch."""
        if not len(batch):
            return
        with self.lock:
            for part in sorted(batch.parts, key=_turn):
                if len(part):
                    self._add(part)
            self.clock_offset_ns = batch.clock_offset_ns or self.clock_offset_ns
            self.change += 1

    def _add(self, part: Part) -> None:
        moments = part.rows["ts_ns"]
        first, last = int(moments.min()), int(moments.max())
        self.first_ns = min(first, self.first_ns or first)
        self.last_ns = max(last, self.last_ns)
        self.overview.add(part)
        moved = self.connections.make_room()
        if moved is not None:
            self._kept = deque(one._replace(numbers=moved[one.numbers]) for one in self._kept)
            self.requests.connections_moved(moved)
        numbers, sides = self.connections.places(part)
        self.connections.add(part, numbers, sides)
        if part.family == "request":
            self.requests.add(part, numbers)
            return
        self.events += len(part)
        self._keep(part, numbers, sides)

    def _keep(self, part: Part, numbers: NDArray[np.intp], sides: NDArray[np.intp]) -> None:
        kept = Kept(self.change, part, numbers, sides, size_of(Batch([part])))
        self._kept.append(kept)
        self._size += kept.size
        while self._size > self._memory and len(self._kept) > 1:
            self._forget_oldest()

    def _forget_oldest(self) -> int:
        oldest = self._kept.popleft()
        self._size -= oldest.size
        self.forgotten += len(oldest.part)
        return len(oldest.part)

    def let_go(self) -> int:
        """Forget about half of the requests and of the other events; return how many that is."""
        with self.lock:
            self.change += 1
            half = (len(self._kept) + 1) // 2
            return self.requests.let_go() + sum(self._forget_oldest() for _ in range(half))

    def of(self, connection: int) -> Iterator[tuple[Part, NDArray[np.intp]]]:
        """Yield the events of a connection that are kept, with the side of each."""
        for one in self.kept(connection):
            yield one.part, one.sides

    def kept(self, connection: int | None = None) -> list[Kept]:
        """Return the events that are kept, or those of a connection, as they came."""
        if connection is None:
            return list(self._kept)
        found = []
        for one in self._kept:
            places = np.flatnonzero(one.numbers == connection)
            if len(places):
                part = one.part.take(places)
                found.append(
                    one._replace(part=part, numbers=one.numbers[places], sides=one.sides[places])
                )
        return found

    def account(self, ledger: Ledger) -> None:
        """Take the account of every event."""
        with self.lock:
            self.ledger = ledger
            if self.run_time:
                self.cost = measured(self.cost, self.run_time())
            self.change += 1

    def end(self, trouble: tuple[str, ...] = ()) -> None:
        """Note that nothing more comes, and what of it could not be read."""
        with self.lock:
            self.trouble = trouble
            self.ended = True
            self.change += 1

    def dropped(self) -> Account:
        """Return what there was no room for."""
        remarks = []
        if self.requests.forgotten:
            remarks.append(
                f"{self.requests.forgotten:,} requests were forgotten for lack of memory"
            )
        if self.connections.forgotten:
            remarks.append(
                f"{self.connections.forgotten:,} connections were forgotten for lack of memory"
            )
        if self.connections.refused:
            remarks.append("some connections are not shown: too many came at once")
        return Account(remarks=tuple(remarks))


def _turn(part: Part) -> int:
    """Order parts: first those that tell of new sockets, requests last."""
    return _ORDER.index(part.family) if part.family in _ORDER else 2 + (part.family == "request")
