"""`tcprism query`."""

from __future__ import annotations

import csv
import datetime
import io
import json
import math
from base64 import b64encode
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from inspect import cleandoc
from typing import Any

import click

from tcprism.cli import options
from tcprism.cli.clickhouse import clickhouse_option, credentials_option, reached
from tcprism.cli.output import opened, silence
from tcprism.cli.recordings import print_trouble
from tcprism.errors import UsageError
from tcprism.events.escape import escape
from tcprism.interrupts import step
from tcprism.recording.queries import QUERIES, NamedQuery
from tcprism.sinks.csv_lines import harmless

EPILOG = """\b
Examples:
  tcprism query run.tcpr top-talkers               a built-in query; --list shows them all
  tcprism query run.tcpr "SELECT comm, sum(bytes) FROM events WHERE kind = 'send' GROUP BY 1"
  tcprism query run.tcpr --format csv "SELECT * FROM connections" > connections.csv
  tcprism query run.tcpr "DESCRIBE events"         the columns
  tcprism query --clickhouse http://127.0.0.1:8123 slowest-requests
                                                   over all hosts of a fleet

Views: events, messages, segments, retransmits, connections; docs/events.md explains the columns.
FILE is a recording, even one still being written, or a directory of recordings. The SQL is one
DuckDB statement. Without --allow-files it can read nothing but the recording."""

Row = Sequence[Any]
_WIDEST = 60  # characters of a cell in a table
_ROWS_MEASURED = 1000


@click.command(epilog=EPILOG)
@click.argument("file", required=False, metavar="FILE")
@click.argument("sql", required=False, metavar="SQL|NAME")
@click.option("--list", "show_list", is_flag=True, help="List the built-in queries.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "csv"]),
    default="table",
    show_default=True,
    help="A readable table, one JSON object per line, or CSV with a header.",
)
@click.option(
    "--allow-files",
    is_flag=True,
    help="Let the SQL read and write files, use the network and change settings.",
)
@clickhouse_option("Query the tables of a fleet in ClickHouse's SQL instead of a recording.")
@credentials_option
@options.memory_option
@click.option(
    "--max-time",
    type=click.FloatRange(0),
    default=0,
    metavar="SECONDS",
    help="Give up a query of a recording that takes longer.",
)
def command(
    file: str | None,
    sql: str | None,
    show_list: bool,
    form: str,
    allow_files: bool,
    clickhouse: str | None,
    credentials: str | None,
    max_memory: str,
    max_time: float,
) -> None:
    """Query a recording, or all hosts of a fleet, with SQL."""
    queries = QUERIES if clickhouse is None else _fleet_queries()
    if show_list:
        print("\n\n".join(_described(queries)))
        return
    if clickhouse is not None:
        _query_fleet(clickhouse, credentials, queries, file, sql, form)
        return
    if not file or not sql:
        raise UsageError("give a recording and a query; `tcprism query --list` shows some by name")
    from tcprism.recording.sql import Database
    from tcprism.stages.requests import requests_of

    memory = options.parse_memory(max_memory)
    with Database(file, allow_files, memory, {"request": requests_of}, max_time) as database:
        _print(_WRITERS[form](*database.query(QUERIES[sql].sql if sql in QUERIES else sql)))
        print_trouble(database)


def _fleet_queries() -> Mapping[str, NamedQuery]:
    from tcprism.fleet.queries import fleet_queries

    return fleet_queries()


def _query_fleet(
    url: str,
    credentials: str | None,
    queries: Mapping[str, NamedQuery],
    sql: str | None,
    more: str | None,
    form: str,
) -> None:
    from tcprism.fleet.server import Server

    if not sql or more:
        raise UsageError(
            "give --clickhouse URL one query; `tcprism query --clickhouse URL --list` shows some"
        )
    server = Server(*reached(url, credentials))
    _print(_WRITERS[form](*server.stream(queries[sql].sql if sql in queries else sql)))


def _described(queries: Mapping[str, NamedQuery]) -> Iterator[str]:
    for name, query in queries.items():
        yield f"{name}: {query.title}\n{cleandoc(query.sql)}"


def _print(lines: Iterable[str]) -> None:
    with opened(None) as output:
        try:
            for line in lines:
                step()
                output.write(line.encode())
            output.flush()
        except BrokenPipeError:
            silence(output)


def _csv(names: Sequence[str], rows: Iterable[Row]) -> Iterator[str]:
    yield _csv_line(list(map(_csv_cell, names)))
    for row in rows:
        yield _csv_line([_csv_cell(value) for value in row])


def _csv_cell(value: Any) -> Any:
    """Return a value as CSV has it; a text comes without control characters and formulas."""
    plain = _plain(value)
    if plain is None or isinstance(plain, int | float):
        return plain
    text = _shown(_flat(plain))
    return text if isinstance(value, bytes | bytearray) else harmless(text)


def _csv_line(row: Row) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(row)
    return line.getvalue()


def _json(names: Sequence[str], rows: Iterable[Row]) -> Iterator[str]:
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise UsageError(
            f"--format json: several columns are called {_shown(twice[0])}: name them apart,"
            " as in SELECT count(*) AS events"
        )
    for row in rows:
        values = dict(zip(names, map(_plain, row), strict=True))
        yield _json_text(values) + "\n"


def _json_text(value: Any) -> str:
    return json.dumps(value, default=str, allow_nan=False)


def _flat(value: Any) -> Any:
    """Return a structure or list as JSON, anything else as it is."""
    return _json_text(_plain(value)) if isinstance(value, Mapping | list | tuple) else value


def _plain(value: Any) -> Any:
    """Return a value as JSON and CSV have it, at every depth.

    Bytes are in base64, times as RFC 3339 without zone, what is no finite number is null.
    """
    if isinstance(value, Mapping):
        return {str(_plain(key)): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, bytes | bytearray):
        return b64encode(value).decode("ascii")
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, float | Decimal):
        return float(value) if math.isfinite(value) else None
    return value


def _table(names: Sequence[str], rows: Iterable[Row]) -> Iterator[str]:
    """Align columns by the first rows, numbers to the right."""
    names = list(map(_shown, names))
    rows = iter(rows)
    first = [row for row, _ in zip(rows, range(_ROWS_MEASURED), strict=False)]
    numeric = [_is_numeric(row[index] for row in first) for index in range(len(names))]
    cells = [[_cell(value) for value in row] for row in first]
    widths = [max(map(len, column)) for column in zip(names, *cells, strict=True)]
    yield _aligned(names, widths, numeric)
    yield _aligned(["-" * width for width in widths], widths, numeric)
    for row in cells:
        yield _aligned(row, widths, numeric)
    for later in rows:
        yield _aligned([_cell(value) for value in later], widths, numeric)


def _is_numeric(values: Iterable[Any]) -> bool:
    return all(value is None or isinstance(value, int | float | Decimal) for value in values)


def _cell(value: Any) -> str:
    """Return a value for a terminal, without a control character."""
    if value is None:
        return "-"
    text = escape(bytes(value)) if isinstance(value, bytes | bytearray) else _shown(_flat(value))
    return text if len(text) <= _WIDEST else text[: _WIDEST - 3] + "..."


def _shown(value: Any) -> str:
    """Return a value as printable ASCII; what tcprism escaped already keeps its backslashes."""
    return escape(str(value).encode()).replace(r"\\", "\\")


def _aligned(row: Sequence[str], widths: Sequence[int], numeric: Sequence[bool]) -> str:
    padded = (
        cell.rjust(width) if right else cell.ljust(width)
        for cell, width, right in zip(row, widths, numeric, strict=True)
    )
    return "  ".join(padded).rstrip() + "\n"


_WRITERS = {"table": _table, "json": _json, "csv": _csv}
