"""Records as Arrow columns and back.

A record batch holds records of one family. Its columns are the wire fields of all families, so that
a stream has one schema; those that the family lacks are null. A column is found by its name, never
by its place, so that records may be laid out in another way in the next version.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tcprism.errors import RecordingError
from tcprism.events import COLUMNS, KINDS, Part
from tcprism.events.arrow import BYTES_OF, fields_read, payload_array
from tcprism.events.columns import BY_NAME
from tcprism.events.context import Context
from tcprism.events.extras import pyarrow
from tcprism.events.families import RECORDS

if TYPE_CHECKING:
    import pyarrow as pa

DERIVED = {column.name: column.json_type for column in COLUMNS if column.derived}
_KIND_NUMBERS = 256  # a byte
_TIME = "ts_ns"
_ALWAYS = ("time", "kind", "cgroup_id")  # the order, the family, whose names come with a batch


@cache
def fields() -> dict[str, np.dtype[Any]]:
    """Return the wire fields of all families, those that all have first."""
    found: dict[str, np.dtype[Any]] = {}
    for record in RECORDS.values():
        for name in record.names or ():
            if found.setdefault(name, record[name]) != record[name]:
                raise TypeError(f"{name} has two types: give one of the fields another name")
    return found


@cache
def schema() -> pa.Schema:
    """Return the schema of a recording, without its metadata."""
    pa = pyarrow()
    columns = [(_column_name(name), _arrow_type(name, kind)) for name, kind in fields().items()]
    columns.append(("payload", pa.binary()))
    columns += [
        (name, pa.int64() if json_type == "integer" else pa.string())
        for name, json_type in DERIVED.items()
    ]
    return pa.schema(columns)


def _column_name(field: str) -> str:
    return "time" if field == _TIME else field


def _arrow_type(name: str, dtype: np.dtype[Any]) -> pa.DataType:
    pa = pyarrow()
    if name == _TIME:
        return pa.timestamp("ns", "UTC")
    if name == "kind":
        return pa.dictionary(pa.uint8(), pa.string())
    if dtype.shape or dtype.kind == "S":
        return pa.binary(dtype.itemsize)
    return pa.from_numpy_dtype(dtype)


@cache
def _kind_names() -> pa.Array:
    """Return a name for each number that a byte can hold: the numbers of the records stay."""
    unknown = [f"unknown-{number}" for number in range(len(KINDS), _KIND_NUMBERS)]
    return pyarrow().array([*KINDS, *unknown])


def fields_of(column: str) -> frozenset[str]:
    """Return the columns of a recording that a public column is made of."""
    if column in DERIVED:
        return frozenset([column, *_ALWAYS])
    read = fields_read(BY_NAME[BYTES_OF.get(column, column)])
    payload = ["payload"] if "payload_length" in read else []
    return frozenset([*map(_column_name, read), *payload, *_ALWAYS])


def to_record_batch(part: Part, clock_offset_ns: int) -> pa.RecordBatch:
    """Return a part's records as Arrow columns."""
    pa = pyarrow()
    columns = [_encode(part, name, clock_offset_ns) for name in fields()]
    columns.append(payload_array(part))
    columns += [_derived(part, name) for name in DERIVED]
    return pa.RecordBatch.from_arrays(columns, schema=schema())


def _encode(part: Part, name: str, clock_offset_ns: int) -> pa.Array:
    pa = pyarrow()
    arrow_type = schema().field(_column_name(name)).type
    if name not in (part.rows.dtype.names or ()):
        return pa.nulls(len(part), arrow_type)
    values = np.ascontiguousarray(part.rows[name])
    if name == _TIME:
        return pa.array(values.view(np.int64) + clock_offset_ns).view(arrow_type)
    if name == "kind":
        return pa.DictionaryArray.from_arrays(pa.array(values), _kind_names())
    if pa.types.is_fixed_size_binary(arrow_type):
        return pa.Array.from_buffers(arrow_type, len(part), [None, pa.py_buffer(values)])
    return pa.array(values)


def _derived(part: Part, name: str) -> pa.Array:
    pa = pyarrow()
    arrow_type = schema().field(name).type
    column = part.derived.get(name)
    if column is None:
        return pa.nulls(len(part), arrow_type)
    mask = np.ma.getmaskarray(column)
    return pa.array(np.ma.getdata(column), type=arrow_type, mask=mask)


def to_part(batch: pa.RecordBatch, family: str, clock_offset_ns: int, context: Context) -> Part:
    """Return the records of a record batch. Raises RecordingError when they make no sense."""
    rows = np.zeros(batch.num_rows, RECORDS[family])
    for name in rows.dtype.names or ():
        column = _checked(batch, _column_name(name))
        if column is not None and len(column):
            rows[name] = _decode(column, name, rows.dtype[name], clock_offset_ns)
    payload = _decode_payloads(_checked(batch, "payload"), rows) if family == "message" else None
    return Part(rows, payload, dict(_derived_columns(batch)), context)


def _checked(batch: pa.RecordBatch, name: str) -> pa.Array | None:
    """Return a column, or None where there is none."""
    index = batch.schema.get_field_index(name)
    if index < 0:
        return None
    if batch.schema.field(index).type != schema().field(name).type:
        raise RecordingError(f"its column {name} is not what this version of tcprism writes")
    return batch.column(index)


def _decode(column: pa.Array, name: str, dtype: np.dtype[Any], clock_offset_ns: int) -> Any:
    pa = pyarrow()
    if name == "kind":
        column = column.indices
    if pa.types.is_fixed_size_binary(column.type):
        width = column.type.byte_width
        data = column.buffers()[1]
        if data is None:
            return np.zeros((), dtype)
        raw = np.frombuffer(data, np.uint8)
        raw = raw[column.offset * width : (column.offset + len(column)) * width]
        return raw.reshape(len(column), width) if dtype.shape else raw.view(dtype)
    if name == _TIME:
        return (column.cast("int64").fill_null(0).to_numpy() - clock_offset_ns).view(np.uint64)
    return column.fill_null(0).to_numpy()


def _decode_payloads(column: pa.Array | None, rows: NDArray[np.void]) -> NDArray[np.uint8] | None:
    """Return the payloads as a table; the records say how much of each row counts."""
    if column is None or column.null_count == len(column):
        return None
    offsets = np.frombuffer(column.buffers()[1], np.int32)
    offsets = offsets[column.offset : column.offset + len(column) + 1]
    lengths = np.diff(offsets)
    rows["payload_length"] = lengths
    width = max(1, int(lengths.max(initial=0)))
    payload = np.zeros((len(rows), width), np.uint8)
    if data := column.buffers()[2]:
        held = np.frombuffer(data, np.uint8)[offsets[0] : offsets[-1]]
        payload[np.arange(width) < lengths[:, None]] = held
    return payload


def _derived_columns(batch: pa.RecordBatch) -> Iterator[tuple[str, np.ma.MaskedArray[Any, Any]]]:
    for name, json_type in DERIVED.items():
        column = _checked(batch, name)
        if column is None or column.null_count == len(column):
            continue
        mask = column.is_null().to_numpy(zero_copy_only=False)
        filled = column.fill_null(0 if json_type == "integer" else "")
        yield name, np.ma.MaskedArray(filled.to_numpy(zero_copy_only=False), mask)
