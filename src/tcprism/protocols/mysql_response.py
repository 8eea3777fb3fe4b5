"""A command of MySQL's protocol, and how far its response has come."""

from __future__ import annotations

from enum import Enum

from tcprism.protocols import Exchange, sql
from tcprism.protocols.mysql_packets import EOF, HEAD, LONGEST


class Next(Enum):
    """What comes next of a response."""

    FIRST = 0
    COLUMNS = 1
    ROWS = 2
    DEFINITIONS = 3  # of a prepared statement


class Asked:
    """A command that waits for its response."""

    __slots__ = ("command", "exchange", "left", "next", "number", "statement")

    def __init__(self, exchange: Exchange, command: int, statement: sql.Statement) -> None:
        self.exchange = exchange
        self.command = command
        self.statement = statement  # that is being prepared
        self.number = 0  # of the packet before the response
        self.next = Next.FIRST
        self.left = 0  # columns

    def pass_over(self, data: bytes, place: int) -> int:
        """Return the place behind columns and rows, which may be behind the end of the data."""
        rows, size = self.next is Next.ROWS, len(data)
        while size - place > HEAD:
            length = int.from_bytes(data[place : place + 3], "little")
            wanted = data[place + HEAD] >= EOF if rows else not self.left
            if wanted or length in (0, LONGEST):
                break
            self.left -= not rows
            place += HEAD + length
        return place
