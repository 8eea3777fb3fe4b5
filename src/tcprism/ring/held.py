"""Memory behind a ring, for what comes faster than it is handed over."""

from __future__ import annotations

from collections import deque

from tcprism.ring.buffer import RingBuffer, Words

FILLS_UP = 1 / 8  # how full a ring is that memory must help


class HeldRing:
    """A ring and what was copied out of it before its turn, read as one: the oldest first."""

    def __init__(self, ring: RingBuffer) -> None:
        self._ring = ring
        self.layout = ring.layout
        self._held: list[deque[Words]] = [deque() for _ in range(ring.layout.lanes)]
        self._counts = [0] * ring.layout.lanes  # of records in each

    @property
    def held_bytes(self) -> int:
        """How much memory is held."""
        return sum(self._counts) * self.layout.stride

    def look(self) -> list[tuple[int, bool]]:
        """Return, for each lane, how many records wait, and whether one may be on its way."""
        lanes = zip(self._counts, self._ring.look(), strict=True)
        return [(held + waiting, written_to) for held, (waiting, written_to) in lanes]

    def fill_level(self) -> float:
        """Return how full the ring is, 0 to 1; 1 as long as memory is held."""
        return 1.0 if any(self._counts) else self._ring.fill_level()

    def hold(self, room_bytes: int) -> None:
        """Copy what is in the ring into memory, as far as there is room, if it fills up."""
        if self._ring.fill_level() < FILLS_UP:
            return
        room = max(0, room_bytes // self.layout.stride)
        for lane, (waiting, _) in enumerate(self._ring.look()):
            left = min(waiting, room)
            room -= left
            while left:
                words = self._ring.read(lane, left)
                left -= len(words)
                self._held[lane].append(words)
                self._counts[lane] += len(words)

    def read(self, lane: int, limit: int) -> Words:
        """Take at most `limit` records of those that wait in a lane, as RingBuffer.read() does."""
        held = self._held[lane]
        if not held:
            return self._ring.read(lane, limit)
        words = held.popleft()
        if len(words) > limit:
            held.appendleft(words[limit:])
            words = words[:limit]
        self._counts[lane] -= len(words)
        return words

    def close(self) -> None:
        """Let go of the ring."""
        self._ring.close()
