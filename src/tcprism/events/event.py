"""Event: one record as a Python object, made only by iterating over a batch."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tcprism.events._event import Attributes
from tcprism.events.columns import BY_NAME, COLUMNS, columns_of
from tcprism.events.kinds import FAMILY_OF_KIND
from tcprism.events.names import endpoint, process
from tcprism.events.part import Part

JsonValue = str | int | bool | None
_NAMES = Attributes.__dataclass_fields__.keys()


@dataclass(frozen=True, slots=True, repr=False)
class Event(Attributes):
    """One event; an attribute is None if it is unknown or if the kind lacks it.

    docs/events.md explains the attributes, which are the JSON keys. `payload` is bytes here.
    `others` has the columns of a registered family; `event["name"]` takes any column.
    """

    others: Mapping[str, JsonValue] | None = None

    def __getitem__(self, name: str) -> Any:
        """Return the value of a column; KeyError if there is no such column."""
        if name in _NAMES:
            return getattr(self, name)
        if name not in BY_NAME:
            raise KeyError(name)
        return (self.others or {}).get(name)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the attributes that events of this kind have."""
        return tuple(column.name for column in columns_of(FAMILY_OF_KIND[self.kind]))

    def as_dict(self) -> dict[str, JsonValue]:
        """Return the event as the JSON format has it: its kind's keys, the payload in base64."""
        values = {name: self[name] for name in self.columns}
        if self.payload is not None:
            values["payload"] = b64encode(self.payload).decode("ascii")
        return values

    def __repr__(self) -> str:
        known = [(name, self[name]) for name in self.columns]
        return (
            f"Event({', '.join(f'{name}={value!r}' for name, value in known if value is not None)})"
        )

    def __str__(self) -> str:
        who = process(self.comm, self.pid)
        local = endpoint(self.local_ip, self.local_port)
        remote = endpoint(self.remote_ip, self.remote_port)
        return f"{self.time} {self.kind} {who} {local} - {remote} {self.bytes} bytes"


def events_of(part: Part, times: Iterable[str]) -> Iterator[Event]:
    """Make an event of each record of a part; `times` are what `time` says."""
    own = len(_NAMES)
    columns: list[Sequence[Any]] = [column.to_list(part) for column in COLUMNS[1:own]]
    if others := [column for column in columns_of(part.family) if column in COLUMNS[own:]]:
        rows = zip(*(column.to_list(part) for column in others), strict=True)
        names = [column.name for column in others]
        columns.append([dict(zip(names, row, strict=True)) for row in rows])
    return map(Event, times, *columns)
