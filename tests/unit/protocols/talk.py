"""Conversations for the tests of parsers: bytes of both ends, whole, cut, late or with gaps."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from tcprism.protocols import Exchange, Protocol
from tcprism.protocols.conversation import Conversation
from tcprism.protocols.known import PROTOCOLS

CLIENT, SERVER = 0, 1

Said = tuple[int, bytes]


class Talk:
    """Says what two ends say; `captured` bytes of each piece are seen, None: all of it."""

    def __init__(
        self,
        protocols: Sequence[Protocol] = PROTOCOLS,
        show_values: bool = False,
        captured: int | None = None,
    ) -> None:
        self.conversation = Conversation(protocols, show_values)
        self._captured = captured
        self._at = [1000, 5000]
        self._ts = 0

    def say(self, side: int, *pieces: bytes) -> None:
        for piece in pieces:
            self.part(side, piece[: self._captured], len(piece))

    def skip(self, side: int, count: int) -> None:
        """Say something of which nothing was seen."""
        self.part(side, b"", count)

    def part(self, side: int, seen: bytes, size: int) -> None:
        """Say something of which only the first bytes were seen."""
        self._ts += 1000
        self.conversation.feed(side, self._at[side], size, seen, self._ts)
        self._at[side] += size

    def end(self) -> list[Exchange]:
        """End both directions; return all exchanges."""
        self.conversation.end(CLIENT)
        self.conversation.end(SERVER)
        return self.conversation.done


def exchanges(
    said: Iterable[Said],
    protocols: Sequence[Protocol] = PROTOCOLS,
    *,
    show_values: bool = False,
    piece: int | None = None,
) -> list[Exchange]:
    """Return the exchanges of a conversation, said in pieces of so many bytes."""
    talk = Talk(protocols, show_values)
    for side, data in said:
        size = piece or len(data)
        talk.say(side, *(data[at : at + size] for at in range(0, len(data), size)))
    return talk.end()


def told(found: Iterable[Exchange]) -> list[tuple[str, str, str]]:
    """Return method, resource and status of each."""
    return [(one.method, one.resource, one.status) for one in found]


def recorded(name: str) -> list[list[Said]]:
    """Return the conversations that record.py has written, by connection."""
    found: dict[str, list[Said]] = {}
    for line in (Path(__file__).parent / "recorded" / name).read_text().splitlines():
        number, mark, data = re.split("([<>])", line)
        found.setdefault(number, []).append(
            (CLIENT if mark == ">" else SERVER, bytes.fromhex(data))
        )
    return list(found.values())
