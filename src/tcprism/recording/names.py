"""Names that mean something only on the machine recorded: stored beside the records that use them.

A name is stored when it is first used and again when it changes, as a container's name does once
its engine has answered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from tcprism.errors import RecordingError
from tcprism.events import Part
from tcprism.events.context import Context, Owner

# The look-ups of a context, and the field of the records that each explains.
_FIELDS = {"owner": "cgroup_id", "drop_reason": "reason", "reset_reason": "reset_reason"}

Names = dict[str, dict[str, Any]]


class NameStore:
    """Tells which names must be stored with a batch."""

    def __init__(self) -> None:
        self._stored: dict[tuple[str, int], Any] = {}

    def news(self, parts: Iterable[Part]) -> Names:
        """Return, by look-up and number, the names that are new since the last call."""
        news: Names = {}
        for part in parts:
            for look_up, number in _numbers(part):
                name = getattr(part.context, look_up)(number)
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


class NameBook:
    """The names read so far; `context` is what they make of the records that come with them."""

    def __init__(self) -> None:
        self._known: dict[str, dict[int, Any]] = {look_up: {} for look_up in _FIELDS}
        self.context = self._make_context()

    def learn(self, news: Any) -> None:
        """Add a batch's names. Raises RecordingError. Earlier contexts keep what they had."""
        try:
            for look_up, names in news.items():
                if look_up in self._known:
                    self._known[look_up] = self._known[look_up] | _decode(look_up, names)
        except (AttributeError, TypeError, ValueError) as error:
            raise RecordingError("its names are damaged") from error
        self.context = self._make_context()

    def _make_context(self) -> Context:
        return Context(
            owner=_table(self._known["owner"], Owner()),
            drop_reason=_table(self._known["drop_reason"], None),
            reset_reason=_table(self._known["reset_reason"], None),
        )


def _decode(look_up: str, names: Mapping[str, Any]) -> dict[int, Any]:
    if look_up == "owner":
        return {int(number): Owner(**owner) for number, owner in names.items()}
    return {int(number): None if name is None else str(name) for number, name in names.items()}


def _table(known: Mapping[int, Any], unknown: Any) -> Callable[[int], Any]:
    return lambda number: known.get(number, unknown)
