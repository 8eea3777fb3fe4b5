"""Rows of the tables that have no events, and Arrow as the server takes it."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tcprism.events.arrow import numbers, strings
from tcprism.events.facts import Facts
from tcprism.events.ledger import Entry, Ledger
from tcprism.events.optional import pyarrow


def encoded(batch: Any) -> bytes:
    """Return an Arrow batch as a stream."""
    ipc = pyarrow().ipc
    output = io.BytesIO()
    options = ipc.IpcWriteOptions(compression="zstd")
    with ipc.new_stream(output, batch.schema, options=options) as stream:
        stream.write_batch(batch)
    return output.getvalue()


def repeated(text: str, rows: int) -> Any:
    """Return a column that has the same text in all rows."""
    pa = pyarrow()
    zeros = numbers(np.zeros(rows, np.int32), pa.int32())
    return pa.DictionaryArray.from_arrays(zeros, strings([text]))


def ledger_rows(host: str, ledger: Ledger, started_ns: int, now_ns: int) -> Any:
    """Return an account: kind ("" of none), counter, count since the start if that is not 0."""
    names = [name for name in Entry.__dataclass_fields__ if name != "kind"]
    counted = [
        *((entry.kind, name, getattr(entry, name)) for entry in ledger.entries for name in names),
        *(("", name, count) for name, count in ledger.counts.items()),
        ("", "unremembered", ledger.unremembered),
    ]
    told = [each for each in counted if each[2]]
    kinds, counters, counts = zip(*told, strict=True)
    columns = {
        "host": repeated(host, len(told)),
        "time": _moments(now_ns, len(told)),
        "started": _moments(started_ns, len(told)),
        "kind": strings(kinds),
        "counter": strings(counters),
        "count": numbers(np.array(counts, np.uint64), pyarrow().uint64()),
    }
    return pyarrow().RecordBatch.from_pydict(columns)


def hosts_row(facts: Facts, started_ns: int, now_ns: int) -> Any:
    """Return a row of the table hosts: who runs, and what it looks at."""
    columns = {
        "host": strings([facts.host]),
        "time": _moments(now_ns, 1),
        "started": _moments(started_ns, 1),
        "tcprism": strings([facts.tcprism]),
        "kernel": strings([facts.kernel]),
        "architecture": strings([facts.architecture]),
        "kinds": _lists([facts.kinds]),
        "hooks": _map(facts.hooks, strings(list(facts.hooks.values()))),
        "filters": _map(facts.filters, _lists(list(facts.filters.values()))),
    }
    return pyarrow().RecordBatch.from_pydict(columns)


def _moments(ns: int, rows: int) -> Any:
    return numbers(np.full(rows, ns, np.int64), pyarrow().timestamp("ns", "UTC"))


def _offsets(ends: Sequence[int]) -> Any:
    return numbers(np.array([0, *ends], np.int32), pyarrow().int32())


def _lists(lists: Sequence[Sequence[str]]) -> Any:
    ends = np.cumsum([len(each) for each in lists], dtype=np.int32).tolist()
    flat = [text for each in lists for text in each]
    return pyarrow().ListArray.from_arrays(_offsets(ends), strings(flat))


def _map(named: Mapping[str, object], values: Any) -> Any:
    """Return a column with one row, a map."""
    names = strings(list(named))
    return pyarrow().MapArray.from_arrays(_offsets([len(named)]), names, values)
