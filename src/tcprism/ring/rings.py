"""All rings of a run: which exist, their sizes, and what their records become."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from tcprism.events import Part
from tcprism.events._wire import LANES_A_CPU, PAYLOAD_CLASSES
from tcprism.events.kinds import FAMILIES, RECORDS, REGISTERED
from tcprism.events.memory import keep_freed_memory
from tcprism.ring import buffer
from tcprism.ring.buffer import Layout, RingBuffer, Words, stride
from tcprism.ring.held import HeldRing

DEFAULT_SIZE = 64 << 20
SMALLEST = 64 << 10
LARGEST = 1 << 30
_MOST_LANES = 64

# How long a record may take from its time stamp to its ring; later ones are sorted in as they come.
SETTLE_NS = 20_000_000
# Copied out of one ring in one go: what is used again before it has left the cache, in memory that
# the C library keeps, costs a third. It also keeps memory bounded while a sink falls behind.
# Rings that are not busy are emptied, whatever is in them: they have all their room while a sink
# writes. What they hold may have to wait for older records of others: of that there is a bound.
_READ_AT_ONCE = 1 << 21
_WAITING_AT_MOST = 64 << 20
# What comes faster than it is handed over is copied into memory, so that rings have room for a
# burst: this many times what the largest ring holds.
_HELD_RINGS = 4
_LEAST_HELD = 1 << 20  # bytes; to give up less is not worth a word


def sizes(
    kinds: Iterable[str],
    payload: int,
    size: int,
    options: bool = False,
    segment_payload: int = 0,
) -> dict[str, int]:
    """Return each ring's size in bytes, 0 for one that this run does not use.

    With `options`, most segments come with those of their TCP header, in rings of their own; with
    `segment_payload`, those that carry any come with so many bytes of it at most.
    """
    chosen = set(kinds)
    rings: dict[str, int] = {}
    for family, its_kinds in FAMILIES.items():
        most = size if chosen & set(its_kinds) else 0
        if family == "segment":
            rings |= _segment_sizes(segment_payload, most, options)
        elif REGISTERED[family].payload:
            rings[f"{family}_0"] = _share(most) if payload else most
            rings |= _payload_sizes(family, payload, most)
        else:
            rings[family] = _share(most) if REGISTERED[family].ring == "rare" else most
    rings["loss_40"] = rings["loss"] if options else 0
    rings["loss"] = _share(rings["loss"]) if options else rings["loss"]
    return rings


def _segment_sizes(payload: int, size: int, options: bool) -> dict[str, int]:
    """Return the sizes of the rings of segments that come without payload, and with it.

    Those with payload are put together in the room of one with options.
    """
    without = _share(size) if payload else size
    room = min(size, SMALLEST) if payload else 0
    rings = {
        "segment": _share(without) if options else without,
        "segment_40": without if options else room,
    }
    return rings | _payload_sizes("segment_40", payload, size)


def _payload_sizes(before: str, payload: int, size: int) -> dict[str, int]:
    """Return the sizes of rings of one name, one a class of payload."""
    rings = {}
    below = 0
    for limit in PAYLOAD_CLASSES:
        rings[f"{before}_{limit}"] = size if payload > below else 0
        below = limit
    return rings


def _share(size: int) -> int:
    """Return the size of a ring that has less to hold than others; 0 stays 0."""
    return max(size // 4, min(size, SMALLEST))


def layouts(sizes: dict[str, int], cpus: int) -> dict[str, Layout]:
    """Return how rings of at most so many bytes are cut up on a machine with so many CPUs.

    All that are used have as many lanes.
    """
    records = {name: size // stride(_record_size(name)) for name, size in sizes.items()}
    fewest = min(filter(None, records.values()), default=1)
    lanes = 1
    while lanes < min(LANES_A_CPU * cpus, _MOST_LANES) and 2 * lanes <= fewest:
        lanes *= 2
    return {
        name: Layout(lanes, held // lanes, _record_size(name)) for name, held in records.items()
    }


def entries(layouts: dict[str, Layout]) -> dict[str, int]:
    """Return how many entries the two maps have of each ring that is used."""
    used = {name: layout for name, layout in layouts.items() if layout.slots}
    records = {name: layout.records for name, layout in used.items()}
    lanes = {f"{name}_lanes": layout.lanes for name, layout in used.items()}
    gather = [used[name].lanes for name in ("message_0", "tls_0") if name in used]
    return records | lanes | ({"gatherings": gather[0]} if gather else {})


def lay_out(layouts: dict[str, Layout], descriptor: Callable[[str], int]) -> None:
    """Tell writers where the lanes of each ring lie, before any hook is on. Raises OSError."""
    for name, layout in layouts.items():
        if layout.slots:
            buffer.lay_out(descriptor(f"{name}_lanes"), layout)


def _behind(name: str) -> int:
    """Return how many bytes follow each record in a ring: its name says how many of what."""
    return sum(map(int, name.split("_")[1:]))


def _dtype(name: str) -> np.dtype[np.void]:
    """Return the dtype of the records in a ring: rings are called after families."""
    return RECORDS[name.partition("_")[0]]


def _to_part(name: str, words: Words) -> Part:
    """View records as what they are: no copy."""
    dtype = _dtype(name)
    raw = words.view(np.uint8)
    heads: NDArray[np.void] = np.ndarray(
        len(raw), dtype, buffer=raw.data, strides=(raw.strides[0],)
    )
    if not _behind(name):
        return Part(heads)
    return Part(heads, raw[:, dtype.itemsize :])


class _Source:
    """One ring and the parts of it that wait for their turn in time."""

    def __init__(self, name: str, ring: HeldRing) -> None:
        self.name = name
        self.ring = ring
        self.first = REGISTERED[name.partition("_")[0]].ring != "busy"
        self.waiting: list[Part] = []
        self.settled_ns = 0  # no later record of this ring is older
        self._latest_ns = [0] * ring.layout.lanes  # of the records read so far

    @property
    def waiting_bytes(self) -> int:
        """How much memory the waiting parts take."""
        return sum(len(part) for part in self.waiting) * self.ring.layout.stride

    def fill(self, now_ns: int, room_bytes: int) -> None:
        """Read what has come since, up to a bound, of which a lane may take what others leave.

        Rings that come first have `room_bytes`.
        """
        lanes = self.ring.look()
        most = max(room_bytes, _READ_AT_ONCE) if self.first else _READ_AT_ONCE
        room = max(len(lanes), most // self.ring.layout.stride)
        settled = now_ns
        emptiest_first = sorted(range(len(lanes)), key=lanes.__getitem__)
        for place, lane in enumerate(emptiest_first):
            waiting, written_to = lanes[lane]
            count = min(waiting, room // (len(lanes) - place))
            room -= count
            self._read(lane, count)
            if written_to or waiting > count:
                settled = min(settled, self._latest_ns[lane])
        self.settled_ns = settled - SETTLE_NS

    def _read(self, lane: int, count: int) -> None:
        while count:
            words = self.ring.read(lane, count)
            count -= len(words)
            part = _to_part(self.name, words)
            self.waiting.append(part)
            self._latest_ns[lane] = int(part.rows["ts_ns"][-1])

    def take(self, until_ns: int | None) -> list[Part]:
        """Hand over what is no younger than `until_ns`; None: everything."""
        if until_ns is None:
            everything, self.waiting = self.waiting, []
            return everything
        taken: list[Part] = []
        kept: list[Part] = []
        for part in self.waiting:
            _split(part, until_ns, taken, kept)
        self.waiting = kept
        return taken


def _split(part: Part, until_ns: int, taken: list[Part], kept: list[Part]) -> None:
    moments = part.rows["ts_ns"]
    ready = moments <= until_ns
    if ready.all():
        taken.append(part)
    elif not ready.any():
        kept.append(part)
    else:
        taken.append(part.take(ready))
        kept.append(part.take(~ready))


class Rings:
    """The rings that a run uses, merged by time.

    `ordered=False` hands every record over at once, for sinks that only count.
    """

    def __init__(
        self, layouts: dict[str, Layout], descriptor: Callable[[str], int], ordered: bool = True
    ) -> None:
        keep_freed_memory()
        self._ordered = ordered
        self._sources = [
            _Source(
                name, HeldRing(RingBuffer(descriptor(name), descriptor(f"{name}_lanes"), layout))
            )
            for name, layout in layouts.items()
            if layout.slots
        ]
        self._sources.sort(key=lambda source: not source.first)
        sizes = (layout.records * layout.stride for layout in layouts.values())
        self._held_at_most = _HELD_RINGS * max(sizes, default=0)
        self._waiting_at_most = _WAITING_AT_MOST
        self._until_ns = 0  # what is no younger has been handed over
        self.received = 0

    def read(self) -> list[Part]:
        """Return what is ready, oldest first between calls; nothing is ready twice."""
        self._hold()
        now = time.monotonic_ns()
        room = self._waiting_at_most - sum(source.waiting_bytes for source in self._sources)
        for source in self._sources:
            if room > 0 or source.settled_ns <= self._until_ns:  # others wait for it
                source.fill(now, room)
        self._until_ns = min((source.settled_ns for source in self._sources), default=0)
        return self._take(self._until_ns if self._ordered else None)

    def _hold(self) -> None:
        """Make room in the rings that fill up."""
        rings = [source.ring for source in self._sources]
        for ring in rings:
            ring.hold(self._held_at_most - sum(other.held_bytes for other in rings))

    @property
    def size(self) -> int:
        """How many bytes all rings have together."""
        return sum(
            source.ring.layout.records * source.ring.layout.stride for source in self._sources
        )

    @property
    def room(self) -> int:
        """How many bytes besides the rings are for what comes too fast, or waits for its turn."""
        return self._held_at_most + self._waiting_at_most

    @room.setter
    def room(self, size: int) -> None:
        held = self._held_at_most * size // self.room
        self._held_at_most, self._waiting_at_most = held, size - held

    def let_go(self) -> int:
        """From now on, have half the memory for what comes too fast; return the bytes of it."""
        half = self._held_at_most // 2
        self._held_at_most -= half
        return half if half > _LEAST_HELD else 0

    def drain(self) -> list[Part]:
        """Return what is left, oldest first between calls; call it until it returns nothing."""
        while not (parts := self.read()):
            if not self.fill_level():
                return self._take(None)
        return parts

    def _take(self, until_ns: int | None) -> list[Part]:
        parts = [part for source in self._sources for part in source.take(until_ns)]
        self.received += sum(map(len, parts))
        return parts

    def fill_level(self) -> float:
        """Return how full the fullest ring is, 0 to 1."""
        return max((source.ring.fill_level() for source in self._sources), default=0.0)

    def close(self) -> None:
        """Unmap every ring."""
        for source in self._sources:
            source.ring.close()


def _record_size(name: str) -> int:
    return _dtype(name).itemsize + _behind(name)
