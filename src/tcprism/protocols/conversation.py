"""A conversation: both directions of a connection, put in order and read by a parser."""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence

from tcprism.protocols import REQUEST, RESPONSE, Exchange, NotThisProtocol, Parser, Protocol
from tcprism.protocols.opening import Opening, Said

# What is not in order: writes of several threads, which return in another order than they wrote.
HELD_MAX = 64  # pieces of a direction
HELD_NS = 50_000_000
REST_MAX = 1 << 20  # bytes of a frame that is not whole yet
TRIES_MAX = 32  # to tell the protocol of a connection; the first may be amid something

_SEQ = 1 << 32
_HALF = 1 << 31
_MASK = _SEQ - 1

Piece = tuple[int, int, bytes, int]  # offset, size, the first of its bytes, when it came


class Direction:
    """What one end sends: how far it has been read, and what is held until its turn comes."""

    __slots__ = ("at", "held", "lost", "rest", "skip")

    def __init__(self) -> None:
        self.at = -1  # offset of the next byte; below 0: nothing has come
        self.held: list[Piece] = []
        self.rest = b""  # bytes before `at` that the parser wants to see again
        self.skip = 0  # bytes that it does not want to see
        self.lost = False  # whether it must find the start of a frame

    def pass_over(self, size: int) -> None:
        """Take the next bytes, which are among those that the parser does not want to see."""
        self.at += size
        self.skip -= size


class Conversation:
    """Takes what both ends send, in any order; `done` are the exchanges that were found.

    The two directions are 0 and 1; which of them is the client's follows from the bytes. `gaps`
    counts missing bytes in which a request may begin.
    """

    def __init__(self, protocols: Sequence[Protocol], show_values: bool = False) -> None:
        self._protocols = protocols
        self._show_values = show_values
        self.directions = (Direction(), Direction())
        self.client = -1  # the direction of requests, once that is known
        self.parser: Parser | None = None
        self.unknown = False  # it speaks nothing that is known here
        self.done: list[Exchange] = []
        self.gaps = 0
        self._opening: Opening | None = Opening(protocols)
        self._tries = 0

    def offset(self, side: int, seq: int) -> int:
        """Return the offset of a sequence number, which is near to what came last."""
        at = self.directions[side].at
        if at < 0:
            return seq + _SEQ
        return at + ((seq - at + _HALF) & _MASK) - _HALF

    def feed(self, side: int, offset: int, size: int, data: bytes | None, ts_ns: int) -> None:
        """Take `size` bytes at an offset, of which the first are `data`. Known ones are no news.

        None: they are for no parser.
        """
        direction = self.directions[side]
        if data is None:
            direction.at = max(direction.at, offset + size)
            return
        first = self.client if self.client >= 0 else 1 - side
        waits = direction.held or self.directions[first].held
        if offset == direction.at and not waits:  # so it is mostly
            direction.at += size
            self._pass(side, data, size - len(data))
            return
        if direction.at < 0:
            direction.at = offset
        if offset + size <= direction.at:
            return
        insort(direction.held, (offset, size, data, ts_ns))
        self._release(ts_ns)

    def _release(self, now_ns: int) -> None:
        """Pass what is next by now, in the order in which it came.

        What is missing for too long is given up, at once if more is. Until then responses wait for
        the requests that came before them: they would be taken for those of later ones.
        """
        lost = False
        while (side := self._next(now_ns, lost)) is not None:
            direction = self.directions[side]
            offset, size, data, _ = direction.held.pop(0)
            if missing := max(0, offset - direction.at):
                lost = True
                direction.at = offset
                self._pass(side, b"", missing)
            if (new := offset + size - direction.at) > 0:
                data = data[size - new :]
                direction.at = offset + size
                self._pass(side, data, new - len(data))

    def _next(self, now_ns: int, lost: bool) -> int | None:
        """Return the direction whose turn it is; `lost`: wait for nothing any more."""
        heads = [
            (direction.held[0][3], side)
            for side, direction in enumerate(self.directions)
            if direction.held
        ]
        for came, side in sorted(heads):
            direction = self.directions[side]
            over = lost or len(direction.held) > HELD_MAX or now_ns - came >= HELD_NS
            if over or direction.held[0][0] <= direction.at:
                return side
            if self.client in (side, -1):
                break
        return None

    def end(self, side: int, closed: bool = True) -> None:
        """Take note that nothing more comes of a direction, as it was `closed` or not recorded."""
        self._release(1 << 63)
        if self.parser and closed:
            self.parser.ended(side ^ self.client, self.directions[side].at)
            self.done.extend(self.parser.done)
            self.parser.done.clear()

    @property
    def kept(self) -> int:
        """How many bytes are kept until more of them come."""
        kept = self._opening.kept if self._opening else 0
        for direction in self.directions:
            kept += len(direction.rest) + sum(len(data) for _, _, data, _ in direction.held)
        return kept

    def leave(self) -> None:
        """Say of what is under way that not all of it was seen, and count what tells nothing."""
        under_way = self.pending()
        for exchange in under_way:
            exchange.gap = True
        if self.parser and all(exchange.end is not None for exchange in under_way):
            self.gaps += len(self.directions[self.client].rest)

    def pending(self) -> list[Exchange]:
        """Return the requests without a whole response."""
        if self.parser:
            return list(self.parser.pending())
        alone = self._opening.alone() if self._opening else None
        if not alone:
            return []
        protocol, self.client, at, data = alone
        parser = protocol.parser(self._show_values)
        try:
            parser.parse(REQUEST, data, at)
        except NotThisProtocol:
            return []
        return [*parser.done, *parser.pending()]

    def _pass(self, side: int, data: bytes, missing: int) -> None:
        """Give the parser bytes that are next, behind which some are missing."""
        parser, direction = self.parser, self.directions[side]
        if parser is None:
            if not self.unknown:
                self._guess(side, data, missing)
            return
        try:
            if missing or direction.rest or direction.skip or direction.lost:
                self._parse(side, data, missing)
            else:
                used = parser.parse(side ^ self.client, data, direction.at - len(data))
                if used < len(data) or parser.successor or parser.ended_here:
                    self._parse(side, data, 0, used)
                else:
                    direction.skip = used - len(data)
        except NotThisProtocol:
            self._revise()
            return
        reader = self.parser  # another one after an upgrade
        if reader and reader.done:
            self.done += reader.done
            reader.done.clear()

    def _parse(self, side: int, data: bytes, missing: int, used: int | None = None) -> None:
        """Have the parser read bytes; `used`: what it has read of them by now."""
        direction, parser = self.directions[side], self.parser
        assert parser
        role = side ^ self.client
        end = direction.at - missing  # the offset behind `data`
        if direction.skip:
            passed = min(direction.skip, len(data))
            direction.skip -= passed
            data = data[passed:]
        if direction.rest:
            data = direction.rest + data
            direction.rest = b""
        while data:
            if direction.lost and not (data := self._found(side, data, end)):
                break
            if used is None:
                used = parser.parse(role, data, end - len(data))
            if parser.successor:
                self.done.extend(parser.done)
                parser = self.parser = parser.successor
            elif parser.ended_here:
                raise NotThisProtocol
            elif not used:
                break
            direction.skip = max(0, used - len(data))
            data, used = data[used:], None
        if missing or len(data) > REST_MAX:
            self._miss(side, data, missing)
        else:
            direction.rest = data

    def _found(self, side: int, data: bytes, end: int) -> bytes:
        """Return bytes from the start of a frame on; none if there is no start."""
        direction, parser, role = self.directions[side], self.parser, side ^ self.client
        assert parser
        place = parser.find(role, data)
        direction.lost = place < 0
        if direction.lost:
            parser.lost(role, end - len(data), end)
            return b""
        return data[place:]

    def _miss(self, side: int, data: bytes, missing: int) -> None:
        """Bytes are missing: those of a body are not wanted, others are a gap."""
        direction, parser = self.directions[side], self.parser
        assert parser
        passed = min(direction.skip, missing)
        direction.skip -= passed
        if passed == missing and not data:
            return
        if side == self.client:
            self.gaps += missing - passed
        direction.lost = True
        begin = direction.at - (missing - passed) - len(data)
        parser.lost(side ^ self.client, begin, direction.at)

    def _guess(self, side: int, data: bytes, missing: int) -> None:
        """Keep the first bytes until it is known what they are."""
        assert self._opening
        piece = side, self.directions[side].at - missing - len(data), data, missing
        self._opening.add(*piece)
        found = self._opening.recognize()
        if not isinstance(found, bool):
            protocol, self.client, pieces = found
            self.parser = protocol.parser(self._show_values)
            self._begin(pieces)
        elif not found:
            self._try_again(piece)  # the other end's may be the rest of something

    def _begin(self, pieces: Sequence[Said]) -> None:
        """Pass the first bytes, each direction's in its order."""
        self._opening = None
        ends = [direction.at for direction in self.directions]
        for place, (side, at, data, missing) in enumerate(pieces):
            self.directions[side].at = at + len(data) + missing
            self._pass(side, data, missing)
            if self.parser is None:  # it was another protocol after all
                for direction, end in zip(self.directions, ends, strict=True):
                    direction.at = end
                for piece in pieces[place + 1 :]:
                    if self._opening:
                        self._opening.add(*piece)
                return

    def _revise(self) -> None:
        """It is another protocol: what comes next shall tell which."""
        parser, self.parser = self.parser, None
        assert parser
        parser.lost(REQUEST, 0, 0)
        parser.lost(RESPONSE, 0, 0)
        self.done.extend(parser.done)
        self.done.extend(parser.pending())
        for direction in self.directions:
            direction.rest, direction.skip, direction.lost = b"", 0, False
        self._try_again()

    def _try_again(self, *pieces: Said) -> None:
        """Let what comes next tell what it is."""
        self._tries += 1
        self.unknown = self._tries >= TRIES_MAX
        opening = Opening(self._protocols)
        for piece in pieces:
            opening.add(*piece)
        self._opening = None if self.unknown else opening
