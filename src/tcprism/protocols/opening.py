"""The first bytes of both directions of a connection, until they tell what it speaks."""

from __future__ import annotations

from collections.abc import Sequence

from tcprism.protocols import Match, Protocol

KEPT_MAX = 16_384  # bytes of a direction, and the rest of a piece
PIECES_MAX = 1_024

Said = tuple[int, int, bytes, int]  # side, offset, bytes, how many behind them are missing
Run = tuple[int, bytes]  # which piece it begins with, and bytes without a gap


class Opening:
    """Keeps the first bytes; what is too much counts as missing."""

    def __init__(self, protocols: Sequence[Protocol]) -> None:
        self._protocols = protocols
        self._pieces: list[Said] = []
        self._kept = [0, 0]

    @property
    def kept(self) -> int:
        """How many bytes are kept."""
        return sum(self._kept)

    def add(self, side: int, at: int, data: bytes, missing: int) -> None:
        """Take bytes that are next, behind which some are missing."""
        if self._kept[side] >= KEPT_MAX:
            data, missing = b"", len(data) + missing
        self._kept[side] += len(data)
        last = self._pieces[-1] if self._pieces else (side, at, b"", 0)
        if last[0] == side and not (data and last[3]):
            _, at, before, missed = last
            data, missing = before + data, missed + missing
            del self._pieces[-1:]
        self._pieces.append((side, at, data, missing))

    def recognize(self) -> tuple[Protocol, int, list[Said]] | bool:
        """Return the protocol, which side is the client, and what to read from the start.

        Otherwise return whether more bytes may tell. A connection that was joined amid something
        may begin behind missing bytes.
        """
        if len(self._pieces) > PIECES_MAX:
            return False
        runs = self._runs(0), self._runs(1)
        if not (runs[0] and runs[1]):
            return True
        more = False
        for which in (0, -1):
            begins = runs[0][which][0], runs[1][which][0]
            found = self._choose((runs[0][which][1], runs[1][which][1]))
            if not isinstance(found, bool):
                return *found, [
                    piece if place >= begins[piece[0]] else _unseen(*piece)
                    for place, piece in enumerate(self._pieces)
                ]
            more |= found
        return more and max(self._kept) < KEPT_MAX

    def alone(self) -> tuple[Protocol, int, int, bytes] | None:
        """Return what the bytes of one side tell while the other has said nothing.

        The protocol, the side, and its bytes with their offset.
        """
        runs = self._runs(0), self._runs(1)
        side = int(not runs[0])
        if not runs[side] or runs[1 - side]:
            return None
        place, head = runs[side][-1]
        for protocol in self._protocols:
            if protocol.alone and protocol.request(head) is Match.YES:
                return protocol, side, self._pieces[place][1], head
        return None

    def _runs(self, side: int) -> list[Run]:
        runs: list[Run] = []
        cut = True
        for place, (its, _, data, missing) in enumerate(self._pieces):
            if its != side:
                continue
            if data and cut:
                runs.append((place, data))
            elif data:
                runs[-1] = runs[-1][0], runs[-1][1] + data
            cut = missing > 0 or (cut and not data)
        return runs

    def _choose(self, heads: Sequence[bytes]) -> tuple[Protocol, int] | bool:
        """Return the protocol that both directions agree on, or whether more bytes may tell."""
        more = False
        for protocol in self._protocols:
            for client in (0, 1):
                request = protocol.request(heads[client])
                if request is Match.NO:
                    continue
                response = protocol.response(heads[1 - client])
                if request is response is Match.YES:
                    if protocol.agree(heads[client], heads[1 - client]):
                        return protocol, client
                    continue
                more |= response is not Match.NO
        return more


def _unseen(side: int, at: int, data: bytes, missing: int) -> Said:
    """Return a piece without its bytes, which are of something whose start was not seen."""
    return side, at, b"", len(data) + missing
