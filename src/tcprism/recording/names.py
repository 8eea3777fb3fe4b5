"""Names that mean something only on the machine recorded: stored beside the records that use them.

A name is stored when it is first used and again when it changes, as a container's name does once
its engine has answered.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import asdict
from operator import itemgetter
from typing import Any

import numpy as np

from tcprism.errors import RecordingError
from tcprism.events import Part
from tcprism.events.context import Context, Owner
from tcprism.recording.framing import LIFT

# The look-ups of a context, and the field of the records that each explains.
_FIELDS = {"owner": "cgroup_id", "drop_reason": "reason", "reset_reason": "reset_reason"}
_LOOK_UPS = (*_FIELDS, "interface")  # an interface's number has its network namespace in front
_INDEX_BITS = 32

_REMEMBERED = 1 << 16  # names, at the most, before a batch

Names = dict[str, dict[str, Any]]
_Known = dict[int, list[tuple[int, Any]]]  # by number: from which batch on it is called what


class NameStore:
    """Tells which names must be stored with a batch."""

    def __init__(self) -> None:
        self._stored: dict[tuple[str, int], Any] = {}

    def news(self, parts: Iterable[Part]) -> Names:
        """Return, by look-up and number, the names that are new since the last call."""
        news: Names = {}
        if len(self._stored) > _REMEMBERED:
            self._stored.clear()  # they are stored once more
        for part in parts:
            for look_up, number in _numbers(part):
                name = _name(part.context, look_up, number)
                if self._stored.get((look_up, number)) != name:
                    self._stored[look_up, number] = name
                    news.setdefault(look_up, {})[str(number)] = (
                        asdict(name) if isinstance(name, Owner) else name
                    )
        return news


def _numbers(part: Part) -> Iterable[tuple[str, int]]:
    for look_up, field in _FIELDS.items():
        if field in (part.rows.dtype.names or ()):
            for number in np.unique(np.ascontiguousarray(part.rows[field])).tolist():
                yield look_up, number
    scoped = part.rows[part.rows["scope_id"] != 0]
    interfaces = scoped["netns"].astype(np.uint64) << _INDEX_BITS | scoped["scope_id"]
    for number in np.unique(interfaces).tolist():
        yield "interface", number


def _name(context: Context, look_up: str, number: int) -> Any:
    if look_up == "interface":
        return context.interface(number >> _INDEX_BITS, number & (1 << _INDEX_BITS) - 1)
    return getattr(context, look_up)(number)


class NameBook:
    """The names read so far; `context` is what they make of the records that come with them.

    At most `most` names are kept.
    """

    def __init__(self, most: int) -> None:
        self._left = most
        self._known: dict[str, _Known] = {look_up: {} for look_up in _LOOK_UPS}
        self._batch = 0
        self.context = self._make_context()

    def learn(self, notes: Any) -> None:
        """Add a batch's names (notes_schema.NamesNote); earlier contexts keep what they had.

        Raises RecordingError where there are too many.
        """
        self._batch += 1
        for number, owner in notes.owner.items():
            fields = (getattr(owner, name) for name in Owner.__dataclass_fields__)
            self._add("owner", number, Owner(*fields))
        for look_up in ("drop_reason", "reset_reason", "interface"):
            for number, name in getattr(notes, look_up).items():
                self._add(look_up, number, name)
        self.context = self._make_context()

    def _add(self, look_up: str, number: int, name: Any) -> None:
        self._left -= 1
        if self._left < 0:
            raise RecordingError(f"it has more names than fit into memory: {LIFT}")
        self._known[look_up].setdefault(number, []).append((self._batch, name))

    def _make_context(self) -> Context:
        interface = _table(self._known["interface"], self._batch, None)
        return Context(
            owner=_table(self._known["owner"], self._batch, Owner()),
            drop_reason=_table(self._known["drop_reason"], self._batch, None),
            reset_reason=_table(self._known["reset_reason"], self._batch, None),
            interface=lambda netns, index: interface(netns << _INDEX_BITS | index),
        )


def _table(known: _Known, batch: int, unknown: Any) -> Callable[[int], Any]:
    """Return the look-up of what a number was called when a batch came."""

    def look_up(number: int) -> Any:
        names = known.get(number, ())
        place = bisect_right(names, batch, key=itemgetter(0))
        return names[place - 1][1] if place else unknown

    return look_up
