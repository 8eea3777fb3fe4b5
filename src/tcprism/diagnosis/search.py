"""Search: words, `field:value` and one group, looked for in connections and in events alike."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tcprism.diagnosis.connections import BY_COLUMN, ends, owners
from tcprism.diagnosis.groups import GROUPINGS, Listening
from tcprism.diagnosis.table import Table
from tcprism.events import Part
from tcprism.events.columns import BY_NAME, columns_of

_TERM = re.compile(r'(?:(\w+):)?("[^"]*"?|\S*)', re.ASCII)
_ENDS = {"host": "ip", "port": "port"}
_LIMIT = "limit"
FIELDS = {"owner", "local", "remote", *_ENDS, _LIMIT, *BY_NAME}
_PLAIN = ("owner", "local", "remote", "kind", "server_comm")
_REQUEST = ("protocol", "method", "resource", "status")

Mask = NDArray[np.bool_]
Values = list[list[str]]  # per row, the texts of which one must match


@dataclass(frozen=True, slots=True)
class Group:
    """A group of GROUPINGS, and which ports of a namespace somebody listens on."""

    grouping: str
    label: str
    listening: Listening

    def __str__(self) -> str:
        return f"{self.grouping} {self.label}"

    def members(self, part: Part) -> Mask:
        """Tell which records are the group's."""
        labels = GROUPINGS[self.grouping](part, self.listening)
        return np.array([label == self.label for label in labels], np.bool_)


@dataclass(frozen=True, slots=True)
class Search:
    """What is looked for: every word of `text` must match, and `group`.

    A plain word is looked for in the owner, the addresses and the ports, in an event's kind, and in
    what a request asks for and its status.
    `field:value` looks in one field: owner, local, remote, host, port, limit (LIMITED BY), or any
    column of the events. A number must be equal; `-` is what is not known.
    """

    text: str = ""
    group: Group | None = None

    def __bool__(self) -> bool:
        return bool(self.text.strip() or self.group)

    def __str__(self) -> str:
        return " ".join(filter(None, (str(self.group or ""), self.text.strip())))

    def connections(self, table: Table) -> Mask:
        """Tell which connections of a table match."""

        def limits() -> list[str]:
            return BY_COLUMN[_LIMIT].texts(table, np.arange(len(table)))

        return self._matches(table.part, limits)

    def events(self, part: Part) -> Mask:
        """Tell which events match."""
        return self._matches(part, lambda: [""] * len(part))

    def _matches(self, part: Part, limits: Callable[[], list[str]]) -> Mask:
        found = self.group.members(part) if self.group else np.ones(len(part), np.bool_)
        for field, value in _terms(self.text):
            if field == _LIMIT:
                found &= _having([[text] for text in limits()], value)
            elif field:
                found &= _having(_texts(part, field), value)
            else:
                lines = (" ".join(row) for row in _columns(part, [*_PLAIN, *_REQUEST]))
                found &= np.array([value in line.lower() for line in lines], np.bool_)
        return found


def _terms(text: str) -> Iterator[tuple[str, str]]:
    """Yield field and value of each term, in lower case; a plain word has no field."""
    for match in _TERM.finditer(text.lower()):
        field, value = match[1] or "", match[2].strip('"')
        if field and field not in FIELDS:
            field, value = "", match[0]  # as in fe80::1
        if value:
            yield field, value


def _having(rows: Values, value: str) -> Mask:
    exact = value == "-" or value.isdecimal()
    return np.array(
        [any(value == text if exact else value in text.lower() for text in row) for row in rows],
        np.bool_,
    )


def _texts(part: Part, field: str) -> Values:
    """Return the texts of a field, per row; none where the records do not have it."""
    if field in _ENDS:
        return _columns(part, [f"{end}_{_ENDS[field]}" for end in ("local", "remote")])
    return _columns(part, [field])


def _columns(part: Part, names: tuple[str, ...] | list[str]) -> Values:
    columns = [column for name in names if (column := _column(part, name)) is not None]
    return [list(row) for row in zip(*columns, strict=True)] if columns else [[]] * len(part)


def _column(part: Part, name: str) -> list[str] | None:
    if name == "owner":
        return owners(part)
    if name in ("local", "remote"):
        return ends(part, name)
    if BY_NAME[name] not in columns_of(part.family):
        return None
    return ["-" if value is None else str(value) for value in BY_NAME[name].to_list(part)]
