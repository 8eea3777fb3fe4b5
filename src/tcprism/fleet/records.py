"""Rows of a fleet's tables as events again, so that all that shows events shows them.

What a column says of a field is found by trying: which value stands for null, and which for a name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from ipaddress import IPv4Address, ip_address
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from tcprism.events import Batch, Part
from tcprism.events.column import DERIVED_TYPES, Column, texts
from tcprism.events.context import Context, Owner
from tcprism.events.escape import escape_text
from tcprism.events.kinds import RECORDS
from tcprism.events.part import HOST, Rows
from tcprism.fleet.tables import stored

_ESCAPED = re.compile(rb"\\(?:x([0-9a-f]{2})|\\)")
_OWNER = ("cgroup", "container_id", "pod_uid", "unit", "container")
_OF_HOST = ("socket", "cgroup_id", "inode")  # numbers that another host may have, too


def batch_of(table: Any, family: str) -> Batch:
    """Return rows of a pyarrow.Table as a batch; its moments are CLOCK_REALTIME's.

    Cookies, inodes and ids of cgroups are made those of one host.
    """
    if not table.num_rows:
        return Batch([])
    columns = {name: table[name].combine_chunks() for name in table.column_names}
    rows = np.zeros(table.num_rows, RECORDS[family])
    derived: dict[str, Any] = {}
    for column in stored(family):
        found = columns.get(column.name)
        if found is None:  # of another version
            _fill(rows, column, np.ones(len(rows), np.bool_), None)
        elif column.derived:
            derived[column.name] = _derived(column, found)
        elif column.field and column.name != "time":
            null = np.array(found.is_null().to_numpy(zero_copy_only=False), np.bool_)
            _fill(rows, column, null, found)
    _use_realtime(rows, columns["time"])
    hosts = [escape_text(str(name)) for name in columns[HOST].to_pylist()]
    context = _of_hosts(rows, hosts, columns)
    derived[HOST] = np.ma.MaskedArray(texts(list(hosts)), False)
    return Batch([Part(rows, None, derived, context)])


def _derived(column: Column, found: Any) -> np.ma.MaskedArray[Any, Any]:
    values = found.to_pylist()
    null = [value is None for value in values]
    if column.json_type != "string":
        filled = np.array([value or 0 for value in values], DERIVED_TYPES[column.json_type])
        return np.ma.MaskedArray(filled, null)
    return np.ma.MaskedArray(texts([escape_text(value or "") for value in values]), null)


def _fill(rows: Rows, column: Column, null: NDArray[np.bool_], found: Any) -> None:
    """Fill in the field that a column shows."""
    field = str(column.field)
    if field not in (rows.dtype.names or ()):
        return
    kind = rows.dtype[field]
    if found is None or null.all():
        rows[field][null] = _null_of(column, rows.dtype)
    elif column.json_type == "string":
        values = found.to_pylist()
        made = {value: _number_of(column, rows.dtype, value) for value in set(values)}
        rows[field] = [made[value] for value in values]
    else:
        values = np.array([0 if value is None else value for value in found.to_pylist()])
        rows[field] = values.astype(kind.base)
        rows[field][null] = _null_of(column, rows.dtype)


@cache
def _null_of(column: Column, dtype: np.dtype[np.void]) -> Any:
    """Return the value of a field that a column shows as null; 0 where there is none."""
    kind = dtype[str(column.field)]
    if kind.kind not in "ui" or kind.shape:
        return np.zeros(1, kind)[0]
    for value in (0, np.iinfo(kind).max, 0x7FFFFFFF):
        trial = np.zeros(1, dtype)
        if value <= np.iinfo(kind).max:
            trial[str(column.field)] = value
            if column.mask(Part(trial))[0]:
                return value
    return 0


def _number_of(column: Column, dtype: np.dtype[np.void], text: str | None) -> Any:
    """Return what a field holds where a column shows a text."""
    kind = dtype[str(column.field)]
    if kind.shape:
        return _packed(text)
    if kind.kind == "S":
        return _unescaped(text or "")[: kind.itemsize]
    if kind.itemsize > 1 or text is None:  # no list of names is that long
        return _null_of(column, dtype)
    return _numbers(column, dtype).get(text, _null_of(column, dtype))


def _packed(text: str | None) -> list[int]:
    try:
        address = ip_address(text or "::")
    except ValueError:
        return [0] * 16
    if isinstance(address, IPv4Address):
        return [*bytes(10), 255, 255, *address.packed]
    return list(address.packed)


def _unescaped(text: str) -> bytes:
    """Return the bytes that `escape` of tcprism.events.escape made a text of."""
    return _ESCAPED.sub(
        lambda found: bytes([int(found[1], 16)]) if found[1] else b"\\", text.encode()
    )


@cache
def _numbers(column: Column, dtype: np.dtype[np.void]) -> Mapping[str, int]:
    """Return the names that a column has for the values of a byte."""
    trial = np.zeros(256, dtype)
    trial[str(column.field)] = np.arange(256)
    named = column.to_list(Part(trial))
    return {name: number for number, name in reversed(list(enumerate(named))) if name is not None}


def _use_realtime(rows: Rows, times: Any) -> None:
    """Have all moments of events be those of CLOCK_REALTIME."""
    moments = np.array(times.cast("int64").to_numpy(zero_copy_only=False), np.int64)
    ahead = moments - rows["ts_ns"].astype(np.int64)
    for name in rows.dtype.names or ():
        if name.endswith("_ts_ns"):
            rows[name] = (rows[name].astype(np.int64) + ahead).astype(np.uint64)
    rows["ts_ns"] = moments.astype(np.uint64)


def _of_hosts(rows: Rows, hosts: list[str], columns: Mapping[str, Any]) -> Context:
    """Tell apart what several hosts may call by one number; return who owners are."""
    numbers = {name: crc32(name.encode()) << 32 for name in set(hosts)}
    high = np.array([numbers[name] for name in hosts], np.uint64)
    for name in _OF_HOST:
        if name in (rows.dtype.names or ()):
            rows[name] = np.where(rows[name] != 0, rows[name] ^ high, 0)
    told = [columns[name].to_pylist() if name in columns else [None] * len(rows) for name in _OWNER]
    owners = {
        number: Owner(*(text and escape_text(text) for text in each))
        for number, *each in zip(rows["cgroup_id"].tolist(), *told, strict=True)
    }
    return Context(owner=lambda number: owners.get(number, Owner()))
