"""SQL over a recording: DuckDB reads it as a table; columns are made when a query needs them.

DuckDB says which columns it needs; only their wire fields are unpacked.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

from tcprism import interrupts
from tcprism.errors import Error, UsageError
from tcprism.events import FAMILIES, Batch
from tcprism.events.arrow import column_names, schema, to_record_batch
from tcprism.events.columns import BY_NAME, columns_of
from tcprism.events.kinds import REGISTERED
from tcprism.events.optional import need, pyarrow
from tcprism.recording.framing import DEFAULT_MEMORY
from tcprism.recording.reader import Recording
from tcprism.recording.schema import fields_of
from tcprism.recording.time_limit import time_limit

_MEMORY_SHARE = 8  # of the memory; beyond that DuckDB goes to disk
_ROWS_AT_ONCE = 1024

# SQL may come from somebody else than the user: it reads the recording and nothing else. Access is
# the last setting that can be changed when others are made, for it forbids to change them.
NO_VARIABLES = "SET python_enable_replacements = false"  # those of this program are no tables
LOCKED = (
    "SET autoinstall_known_extensions = false",
    "SET autoload_known_extensions = false",
    "SET allow_community_extensions = false",
    "SET enable_external_access = false",
    "SET lock_configuration = true",
)
_FORBIDDEN = ("disabled by configuration", "disabled through configuration", "has been locked")

_VIEWS = {
    "messages": (FAMILIES["message"], ("message",)),
    "segments": (("transmit", "probe", "retransmit"), ("segment", "loss")),
    "retransmits": (("retransmit",), ("loss",)),
    "connections": (("close",), ("connection",)),
}
VIEWS = ("events", *_VIEWS)


# Makes events of others.
Make = Callable[[Iterable[Batch]], Iterator[Batch]]


class Database:
    """A recording as views for SQL; `trouble` is what the last look at it found missing.

    A query has no access to files, the network and settings but with `allow_files`, and may take so
    many `seconds` (0: any). `made` has, for families that are made of the recorded events, what
    makes them when a query asks for them. Raises RecordingError and ExtraMissing.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        allow_files: bool = False,
        memory: int = DEFAULT_MEMORY,
        made: Mapping[str, Make] | None = None,
        seconds: float = 0,
    ) -> None:
        if os.fspath(path) == "-":
            raise UsageError("a query may read a recording twice: give it a file, not a pipe")
        Recording(path, memory=memory).close()  # what cannot be read is said before anything else
        self._duckdb = need("duckdb", "sql")
        self._events = _dataset(Path(path), memory)
        self._seconds = seconds
        # DuckDB spills there, not into the current directory.
        self._scratch = tempfile.TemporaryDirectory(prefix="tcprism-")
        self._cleaning = ExitStack()
        self._cleaning.enter_context(interrupts.cleaning(self._scratch.cleanup))
        self._connection = self._duckdb.connect(
            config={
                "memory_limit": f"{memory // _MEMORY_SHARE}B",
                "temp_directory": self._scratch.name,
            }
        )
        self._connection.register("events", self._events)
        for family, make in (made or {}).items():
            self._connection.register(_made_of(family), _dataset(Path(path), memory, make))
        for name, (kinds, families) in (_VIEWS | _made_views()).items():
            source = _made_of(families[0]) if families[0] in (made or {}) else "events"
            self._connection.execute(_view(name, kinds, families, source))
        for setting in (NO_VARIABLES, *(() if allow_files else LOCKED)):
            self._connection.execute(setting)

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._scratch.cleanup()
        self._cleaning.close()

    @property
    def trouble(self) -> list[str]:
        """What is missing in the recording, a sentence a file."""
        return list(self._events.trouble)

    @property
    def damaged(self) -> bool:
        """Whether the recording could not be read to its end."""
        return bool(self._events.damaged)

    def query(self, sql: str) -> tuple[list[str], Iterator[tuple[Any, ...]]]:
        """Return the names of the result's columns and its rows.

        Raises UsageError for bad SQL, and for what takes too long.
        """
        try:
            until = time.monotonic() + self._seconds
            with time_limit(self._connection, self._seconds):
                cursor = self._connection.execute(self._one_statement(sql))
            names = [column[0] for column in cursor.description or ()]
        except self._duckdb.Error as error:
            raise self._explained(error) from error
        return names, self._rows(cursor, until)

    def _one_statement(self, sql: str) -> Any:
        try:
            sql.encode()
        except UnicodeEncodeError as error:
            raise UsageError("the query is not UTF-8: write it again") from error
        statements = self._connection.extract_statements(sql)
        if len(statements) != 1:
            raise UsageError(
                f"there are {len(statements)} statements in the query: only the last one's result"
                " would be shown; give one, as in WITH a AS (...) SELECT ..."
                if statements
                else "the query is empty; `tcprism query --list` shows some by name"
            )
        return statements[0]

    def _rows(self, cursor: Any, until: float) -> Iterator[tuple[Any, ...]]:
        try:
            while rows := self._fetch(cursor, until):
                yield from rows
        except self._duckdb.Error as error:
            raise self._explained(error) from error

    def _fetch(self, cursor: Any, until: float) -> list[tuple[Any, ...]]:
        left = until - time.monotonic()
        if self._seconds and left <= 0:
            raise self._too_long()
        with time_limit(self._connection, left if self._seconds else 0):
            return list(cursor.fetchmany(_ROWS_AT_ONCE))

    def _too_long(self) -> UsageError:
        return UsageError(
            f"the query takes longer than {self._seconds:g} s: ask for less, or raise --max-time"
        )

    def _explained(self, error: Exception) -> Error:
        """Return the recording's own error, or what DuckDB says in one line."""
        if isinstance(error, self._duckdb.InterruptException) and self._seconds:
            return self._too_long()
        if self._events.error:
            mine: Error = self._events.error
            return mine
        said = str(error).strip().splitlines()[0].rstrip(".")
        if any(text in said for text in _FORBIDDEN):
            return UsageError(f"{said}; --allow-files permits files, the network and settings")
        return UsageError(f"{said}; `tcprism query --list` shows queries that work")


def _made_views() -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """Return a view for each family that stages make, called after it."""
    made = [name for name in REGISTERED if name not in (*FAMILIES, "snapshot")]
    return {f"{name}s": (tuple(k.name for k in REGISTERED[name].kinds), (name,)) for name in made}


def _made_of(family: str) -> str:
    return f"events_with_{family}s"


def _view(name: str, kinds: Sequence[str], families: Sequence[str], source: str) -> str:
    names = [f'"{name}"' for name in column_names() if _is_of(name, families)]
    chosen = ", ".join(f"'{kind}'" for kind in kinds)
    columns = ", ".join(names)
    return f"CREATE VIEW {name} AS SELECT {columns} FROM {source} WHERE kind IN ({chosen})"


def _is_of(name: str, families: Sequence[str]) -> bool:
    column = BY_NAME.get(name)
    return column is None or any(column in columns_of(family) for family in families)


def sql_schema() -> Any:
    """Return the columns' types: `time` without zone, for DuckDB's type with one has no ns."""
    pa = pyarrow()
    plain = pa.field("time", pa.timestamp("ns"))
    return schema().set(schema().get_field_index("time"), plain)


class _Scanner:
    """What DuckDB reads from. Arrow's own reads ahead in threads that may outlive Python."""

    def __init__(self, shown: Any, batches: Iterator[Any]) -> None:
        self._schema = shown
        self._batches = batches

    def to_reader(self) -> Any:
        return pyarrow().RecordBatchReader.from_batches(self._schema, self._batches)


@cache
def _dataset_class() -> Any:
    base: Any = need("pyarrow.dataset", "arrow").Dataset

    class Events(base):  # type: ignore[misc]
        """What DuckDB takes for a data set: it asks for a scanner of some columns."""

        def __init__(self, path: Path, memory: int, make: Make | None) -> None:
            self._path, self._memory, self._make = path, memory, make
            self.trouble: list[str] = []
            self.damaged = False
            self.error: Error | None = None

        @property
        def schema(self) -> Any:
            return sql_schema()

        def scanner(self, columns: Any = None, filter: Any = None, **_: object) -> Any:
            pa = pyarrow()
            names = list(columns) if columns is not None else list(sql_schema().names)
            read = [*names, *(name for name in _named_in(filter) if name not in names)]
            wanted = pa.schema([sql_schema().field(name) for name in read])
            return _Scanner(
                pa.schema([wanted.field(n) for n in names]), self._chosen(wanted, filter, names)
            )

        def _chosen(self, wanted: Any, condition: Any, names: list[str]) -> Iterator[Any]:
            for batch in self._read(wanted):
                table = pyarrow().Table.from_batches([batch])
                chosen = table if condition is None else table.filter(condition)
                yield from chosen.select(names).to_batches()

        def _read(self, wanted: Any) -> Iterator[Any]:
            try:
                fields = None if self._make else _fields(wanted.names)
                recording = Recording(self._path, fields=fields, memory=self._memory)
                batches = recording.batches()
                for batch in self._make(batches) if self._make else batches:
                    columns = to_record_batch(batch, wanted.names).columns
                    plain = [
                        column.view(field.type) if field.name == "time" else column
                        for column, field in zip(columns, wanted, strict=True)
                    ]
                    yield pyarrow().RecordBatch.from_arrays(plain, schema=wanted)
                self.trouble, self.damaged = recording.trouble, recording.damaged
            except Error as error:
                self.error = error
                raise

    return Events


def _dataset(path: Path, memory: int, make: Make | None = None) -> Any:
    return _dataset_class()(path, memory, make)


def _named_in(expression: Any) -> list[str]:
    """Return the columns that a filter may read: all whose names stand in it."""
    words = set(re.findall(r"\w+", str(expression)))
    return [name for name in column_names() if name in words]


def _fields(names: Sequence[str]) -> frozenset[str]:
    """Return the fields of a recording that columns are made of."""
    return frozenset(field for name in names for field in fields_of(name))
