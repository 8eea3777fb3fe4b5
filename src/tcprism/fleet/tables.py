"""The tables of a fleet. Their columns follow from those of events (`tcprism.events.columns`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from tcprism.events.column import Column
from tcprism.events.columns import columns_of
from tcprism.events.kinds import RECORDS
from tcprism.events.requests import ATTRIBUTES

# Inserts whose tokens a table remembers, so that one that comes twice is there once.
DEDUPLICATED = 10_000

# Rows of a host are in order of time, so most moments are a small step from the one before.
_STEPS = "CODEC(Delta(8), ZSTD(1))"
_PLAIN = "CODEC(ZSTD(1))"
_MOMENTS = ("ts_ns", "start_ts_ns", "message_ts_ns")
_HOST = "LowCardinality(String)"
_TIME = "DateTime64(9, 'UTC')"

# Texts of which nearly every row has another.
_UNLIKE = ("message_text",)


@dataclass(frozen=True)
class Table:
    """A table: rows of one family of events, or, without a family, of `own` columns with types.

    Rows are deleted `days` after their time.
    """

    name: str
    days: int
    family: str = ""
    own: Mapping[str, str] = field(default_factory=dict)

    def columns(self) -> dict[str, str]:
        """Return the columns with their types and codecs."""
        if not self.family:
            return {"host": _of(_HOST), "time": f"{_TIME} {_STEPS}", **self.own}
        named = {column.name: _column(column, self.family) for column in stored(self.family)}
        return {"host": _of(_HOST), **named, **_aliases(self.family)}

    def create(self) -> str:
        """Return the statement that makes the table."""
        lines = ",\n".join(f"    `{name}` {kind}" for name, kind in self.columns().items())
        return (
            f"CREATE TABLE IF NOT EXISTS {self.name}\n(\n{lines}\n)\n"
            "ENGINE = MergeTree\n"
            "PARTITION BY toDate(time)\n"
            "ORDER BY (host, time)\n"
            f"TTL toDateTime(time) + INTERVAL {self.days} DAY\n"
            "SETTINGS ttl_only_drop_parts = 1,"
            f" non_replicated_deduplication_window = {DEDUPLICATED};\n"
        )

    def alter(self, names: Iterator[str]) -> str:
        """Return the statements that add columns."""
        kinds = self.columns()
        return "".join(
            f"ALTER TABLE {self.name} ADD COLUMN IF NOT EXISTS `{name}` {kinds[name]};\n"
            for name in names
        )


def _of(kind: str, codec: str = _PLAIN) -> str:
    return f"{kind} {codec}"


TABLES = (
    Table("requests", 7, "request"),
    Table("connection_events", 30, "connection"),
    Table("losses", 30, "loss"),
    Table("snapshots", 2, "snapshot"),
    Table(
        "ledger",
        30,
        own={
            "started": _of(_TIME),
            "kind": _of("LowCardinality(String)"),
            "counter": _of("LowCardinality(String)"),
            "count": _of("UInt64"),
        },
    ),
    Table(
        "hosts",
        90,
        own={
            "started": _of(_TIME),
            "tcprism": _of("LowCardinality(String)"),
            "kernel": _of("LowCardinality(String)"),
            "architecture": _of("LowCardinality(String)"),
            "kinds": _of("Array(LowCardinality(String))"),
            "hooks": _of("Map(LowCardinality(String), LowCardinality(String))"),
            "filters": _of("Map(LowCardinality(String), Array(String))"),
        },
    ),
)
OF_FAMILY = {table.family: table for table in TABLES if table.family}

# The views of a recording (`tcprism.recording.sql`), with drops: each the kinds of one table.
VIEWS: dict[str, tuple[str, tuple[str, ...]]] = {
    "connections": ("connection", ("close",)),
    "retransmits": ("loss", ("retransmit",)),
    "drops": ("loss", ("drop",)),
}


def stored(family: str) -> tuple[Column, ...]:
    """Return the columns of a family that are stored: those that others follow from."""
    attributes = {each.name.replace(".", "_") for each in ATTRIBUTES}
    return tuple(column for column in columns_of(family) if column.name not in attributes)


def _column(column: Column, family: str) -> str:
    if column.name == "time":
        return f"{_TIME} {_STEPS}"
    codec = _STEPS if column.name in _MOMENTS else _PLAIN
    kind = f"Nullable({_kind(column, family)})" if column.nullable else _kind(column, family)
    if column.json_type == "string" and column.name not in _UNLIKE:
        kind = f"LowCardinality({kind})"
    return f"{kind} {codec}"


def _kind(column: Column, family: str) -> str:
    if column.json_type != "integer":
        return {"string": "String", "boolean": "Bool"}[column.json_type]
    wire = np.dtype(np.int64) if column.field is None else RECORDS[family][column.field]
    return {"u": "UInt", "i": "Int"}[wire.kind] + str(8 * wire.itemsize)


def _aliases(family: str) -> dict[str, str]:
    """Return OpenTelemetry's names for columns of requests: worked out when they are asked for."""
    if family != "request":
        return {}
    found = {}
    for each in ATTRIBUTES:
        protocols = ", ".join(f"'{name}'" for name in each.protocols)
        value = f"toInt64OrNull({each.column})" if each.json_type == "integer" else each.column
        found[each.name.replace(".", "_")] = f"ALIAS if(protocol IN ({protocols}), {value}, NULL)"
    return found


def views() -> str:
    """Return the statements that make the views of a recording."""
    made = [
        f"CREATE OR REPLACE VIEW {name} AS\nSELECT *\nFROM {OF_FAMILY[family].name}\n"
        f"WHERE kind IN ({', '.join(repr(kind) for kind in kinds)});\n"
        for name, (family, kinds) in VIEWS.items()
    ]
    return "\n".join([*made, _events()])


def _events() -> str:
    """Return the statement that makes the view of all events."""
    families = ("connection", "loss", "snapshot", "request")
    has = {family: {column.name: column for column in stored(family)} for family in families}
    names = dict.fromkeys(name for family in families for name in has[family])
    selects = []
    for family in families:
        chosen = [
            f"`{name}`" if name in has[family] else f"NULL AS `{name}`" for name in ("host", *names)
        ]
        chosen[0] = "host"
        selects.append(f"SELECT {', '.join(chosen)}\nFROM {OF_FAMILY[family].name}")
    return "CREATE OR REPLACE VIEW events AS\n" + "\nUNION ALL\n".join(selects) + ";\n"
