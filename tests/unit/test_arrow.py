"""Batches as Arrow say what the events say, to every reader."""

from __future__ import annotations

import csv
import io
import sys
from base64 import b64encode
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas
import polars
import pyarrow
import pytest
from hypothesis import given, settings

from tcprism.errors import ExtraMissing
from tcprism.events import COLUMNS, FAMILIES, Batch
from tcprism.events.arrow import BYTES_OF, schema
from tcprism.sinks.formats import sink_for

from .recordings import CLOCK_OFFSET_NS, batches, random_part

WHOLE = Batch([random_part(family, 40, 7) for family in FAMILIES], CLOCK_OFFSET_NS)
NAMES = [column.name for column in COLUMNS]


def truth(batch: Batch) -> list[dict[str, Any]]:
    """Return what the events say, the time apart, which readers have in types of their own."""
    return [{name: getattr(event, name) for name in NAMES[1:]} for event in batch]


def rows(table: pyarrow.Table) -> list[dict[str, Any]]:
    kept: list[dict[str, Any]] = table.select(NAMES[1:]).to_pylist()
    return kept


@settings(max_examples=20)
@given(batches())
def test_every_value(made: list[Batch]) -> None:
    for batch in made:
        table = batch.to_arrow()
        table.validate(full=True)
        assert rows(table) == truth(batch)
        assert (
            table["time"].cast("int64").to_numpy().tolist()
            == batch["time"].astype(np.int64).tolist()
        )


def test_addresses_as_bytes() -> None:
    table = WHOLE.to_arrow([*BYTES_OF])
    for name, column in BYTES_OF.items():
        expected = np.concatenate([part.rows[column] for part in WHOLE.parts])[WHOLE.permutation]
        assert table[name].to_pylist() == [bytes(row) for row in expected.tolist()]


def test_some_columns() -> None:
    assert WHOLE.to_arrow(["comm", "bytes"]).column_names == ["comm", "bytes"]


def test_polars_has_every_value() -> None:
    frame = WHOLE.to_polars(["kind", "bytes", "srtt_us"])
    expected = [(event.kind, event.bytes, event.srtt_us) for event in WHOLE]
    assert frame.rows() == expected


def test_a_notebook_shows_events_as_text() -> None:
    class Rows(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.tags: list[str] = []
            self.cells: list[str] = []

        def handle_starttag(self, tag: str, attrs: object) -> None:
            self.tags.append(tag)

        def handle_data(self, data: str) -> None:
            self.cells.append(data)

    part = random_part("message", 30, 3)
    part.rows["comm"] = b"<script>x"
    shown = Rows()
    shown.feed(Batch([part], CLOCK_OFFSET_NS)._repr_html_())
    tables, charts = {"table", "thead", "tr", "th", "tbody", "td", "p"}, {"svg", "path", "span"}
    assert {*shown.tags} == tables | charts
    assert shown.tags.count("tr") == 1 + 20
    assert "<script>x" in shown.cells
    assert "10 more events" in shown.cells


def test_types_follow_from_the_records() -> None:
    types = {field.name: field.type for field in schema()}
    assert types["time"] == pyarrow.timestamp("ns", "UTC")
    assert types["bytes"] == pyarrow.int64()
    assert types["socket"] == pyarrow.uint64()
    assert pyarrow.types.is_dictionary(types["comm"])


def test_readers_take_a_batch_as_it_is() -> None:
    size = sum(event.bytes for event in WHOLE)
    assert polars.DataFrame(WHOLE)["bytes"].sum() == size
    assert WHOLE.to_pandas()["bytes"].sum() == size
    batch = WHOLE  # DuckDB looks for the name
    assert duckdb.execute("SELECT sum(bytes) FROM batch").fetchone() == (size,)
    assert pyarrow.table(batch).num_rows == len(WHOLE)


def exported(form: str, path: Path) -> Path:
    """Write the batch to a file, twice, as an export does."""
    with path.open("wb") as file:
        sink = sink_for(form)(file)
        sink.write(WHOLE)
        sink.write(Batch([]))
        sink.write(WHOLE)
        sink.close()
    return path


def test_parquet_in_duckdb_polars_and_pandas(tmp_path: Path) -> None:
    path = exported("parquet", tmp_path / "run.parquet")
    expected = truth(WHOLE) * 2
    query = f"SELECT {', '.join(map(repr_name, NAMES[1:]))} FROM '{path}'"
    cursor = duckdb.execute(query)
    assert [dict(zip(NAMES[1:], row, strict=True)) for row in cursor.fetchall()] == expected
    assert polars.read_parquet(path).select(NAMES[1:]).to_dicts() == expected
    frame = pandas.read_parquet(path, dtype_backend="pyarrow")
    assert frame["bytes"].tolist() == [event["bytes"] for event in expected]
    assert frame["comm"].isna().tolist() == [event["comm"] is None for event in expected]


def repr_name(name: str) -> str:
    return f'"{name}"'


def test_arrow_in_polars(tmp_path: Path) -> None:
    path = exported("arrow", tmp_path / "run.arrows")
    assert polars.read_ipc_stream(path).select(NAMES[1:]).to_dicts() == truth(WHOLE) * 2


def test_csv(tmp_path: Path) -> None:
    """With Python's own reader, and types as DuckDB finds them."""
    path = exported("csv", tmp_path / "run.csv")
    with path.open(newline="") as file:
        read = list(csv.DictReader(file))
    for event, line in zip(truth(WHOLE) * 2, read, strict=True):
        for name, value in event.items():
            assert line[name] == in_csv(value), name
    result = duckdb.execute(f"SELECT sum(bytes), count(pid) FROM '{path}'")
    pids = sum(event.pid is not None for event in WHOLE)
    assert result.fetchone() == (2 * sum(event.bytes for event in WHOLE), 2 * pids)


def in_csv(value: object) -> str:
    if isinstance(value, bytes):
        return b64encode(value).decode()
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@")):
        return f"'{value}"  # no formula
    return "" if value is None else str(value)


@pytest.mark.parametrize("form", ["csv", "arrow", "parquet"])
def test_no_events(form: str, tmp_path: Path) -> None:
    """A file with columns and no rows."""
    file = io.BytesIO()
    sink = sink_for(form)(file)
    sink.close()
    if form == "csv":
        assert file.getvalue().decode() == ",".join(NAMES) + "\n"
    elif form == "arrow":
        assert polars.read_ipc_stream(file.getvalue()).columns == schema().names
    else:
        assert polars.read_parquet(file.getvalue()).columns == schema().names


def test_without_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ExtraMissing, match=r"pip install 'tcprism\[arrow\]'"):
        WHOLE.to_arrow()
