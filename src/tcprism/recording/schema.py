"""Records as Arrow columns and back.

The columns are the wire fields of all families; those that a record's family lacks are null. A
column is found by its name, never by its place, so that records may be laid out in another way in
the next version.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tcprism.errors import RecordingError
from tcprism.events import COLUMNS, Batch, Part
from tcprism.events._wire import PAYLOAD_CLASSES, PAYLOAD_MAX
from tcprism.events.arrow import BYTES_OF, fields_read, numbers, payload_array, strings
from tcprism.events.column import texts
from tcprism.events.columns import BY_NAME
from tcprism.events.context import Context
from tcprism.events.escape import escape_text
from tcprism.events.kinds import (
    KIND_NUMBERS,
    NO_KIND,
    NUMBERS,
    RECORDS,
    REGISTERED,
    kind_name,
    numbers_of,
    remembered,
)
from tcprism.events.optional import pyarrow

if TYPE_CHECKING:
    import pyarrow as pa

Places = NDArray[np.intp]

_CLASSES = np.array([0, *PAYLOAD_CLASSES])
_TIME = "ts_ns"
_NULLS_SHARED = 1 << 15
_ROWS_AT_ONCE = 4096  # so many records stay in the processor's cache while they are put together
_ALWAYS = ("time", "kind", "cgroup_id")  # the order, the family, whose names come with a batch


@remembered
def fields() -> dict[str, np.dtype[Any]]:
    """Return the wire fields of all families, those that all have first."""
    found: dict[str, np.dtype[Any]] = {}
    for record in RECORDS.values():
        found |= {name: record[name] for name in record.names or ()}
    return found


@remembered
def derived_types() -> dict[str, str]:
    """Return the columns that stages add, with their type in JSON."""
    return {column.name: column.json_type for column in COLUMNS if column.derived}


@remembered
def schema() -> pa.Schema:
    """Return the schema of a recording, without its metadata."""
    pa = pyarrow()
    columns = [(_column_name(name), _arrow_type(name, kind)) for name, kind in fields().items()]
    columns.append(("payload", pa.binary()))
    types = {"integer": pa.int64(), "boolean": pa.bool_(), "string": pa.string()}
    columns += [(name, types[json_type]) for name, json_type in derived_types().items()]
    return pa.schema(columns)


def _column_name(field: str) -> str:
    return "time" if field == _TIME else field


def _field(column: str) -> str:
    return _TIME if column == "time" else column


def _arrow_type(name: str, dtype: np.dtype[Any]) -> pa.DataType:
    pa = pyarrow()
    if name == _TIME:
        return pa.timestamp("ns", "UTC")
    if name == "kind":
        return pa.dictionary(pa.uint8(), pa.string())
    if dtype.shape or dtype.kind == "S":
        return pa.binary(dtype.itemsize)
    return pa.from_numpy_dtype(dtype)


@remembered
def _kind_names() -> pa.Array:
    """Return a name for each number that a byte can hold: the numbers of the records stay."""
    return strings(list(map(kind_name, range(KIND_NUMBERS))))


def fields_of(column: str) -> frozenset[str]:
    """Return the columns of a recording that a public column is made of."""
    if column in derived_types():
        return frozenset([column, *_ALWAYS])
    read = fields_read(BY_NAME[BYTES_OF.get(column, column)])
    payload = ["payload"] if "payload_length" in read else []
    return frozenset([*map(_column_name, read), *payload, *_ALWAYS])


def to_record_batch(batch: Batch) -> pa.RecordBatch:
    """Return a batch's records in time order as Arrow columns."""
    pa = pyarrow()
    columns = [_column(batch, field.name) for field in schema()]
    return pa.RecordBatch.from_arrays(columns, schema=schema())


def _column(batch: Batch, name: str) -> pa.Array:
    pa = pyarrow()
    arrow_type = schema().field(name).type
    if not any(_has(part, name) for part in batch.parts):
        return _nulls(len(batch), arrow_type)
    pieces = [
        _encode(part, name, batch.clock_offset_ns)
        if _has(part, name)
        else _nulls(len(part), arrow_type)
        for part in batch.parts
    ]
    if len(pieces) == 1 and batch.is_ordered:
        return pieces[0]
    return pa.concat_arrays(pieces).take(numbers(batch.permutation, pa.int64()))


_nulls_of: dict[pa.DataType, pa.Array] = {}


def _nulls(count: int, arrow_type: pa.DataType) -> pa.Array:
    """Return so many nulls. Columns share their memory, for most are empty in most batches."""
    if count > _NULLS_SHARED:
        return pyarrow().nulls(count, arrow_type)
    if arrow_type not in _nulls_of:
        _nulls_of[arrow_type] = pyarrow().nulls(_NULLS_SHARED, arrow_type)
    return _nulls_of[arrow_type].slice(0, count)


def _has(part: Part, name: str) -> bool:
    if name == "payload":
        return part.payload is not None
    return name in part.derived or _field(name) in (part.rows.dtype.names or ())


def _encode(part: Part, name: str, clock_offset_ns: int) -> pa.Array:
    pa = pyarrow()
    arrow_type = schema().field(name).type
    if name == "payload":
        return payload_array(part)
    if name in part.derived:
        column = part.derived[name]
        if arrow_type == pa.string():
            return strings(column.tolist())
        return numbers(np.ma.getdata(column), arrow_type, np.ma.getmaskarray(column))
    values = np.ascontiguousarray(part.rows[_field(name)])
    if name == "time":
        values = values.view(np.int64) + clock_offset_ns
    if name == "kind":
        return pa.DictionaryArray.from_arrays(numbers(values, pa.uint8()), _kind_names())
    return pa.Array.from_buffers(arrow_type, len(part), [None, pa.py_buffer(values)])


def to_parts(batch: pa.RecordBatch, clock_offset_ns: int, context: Context) -> list[Part]:
    """Return the records of a record batch. Raises RecordingError when they make no sense.

    Records of a kind that is not known, which a later tcprism may have, are left out.
    """
    pa = pyarrow()
    columns = {field.name: _checked(batch, field) for field in batch.schema if _known(field.name)}
    for name in _ALWAYS:
        if name not in columns:
            raise RecordingError(f"it has no column {name}")
    kinds = _kind_numbers(columns["kind"])
    parts = []
    for family, group in _groups(kinds, columns.get("payload")):
        chosen = {name: columns[name] for name in _columns_of(family) if name in columns}
        if len(group) < len(kinds):
            places = numbers(group, pa.int64())
            chosen = {name: column.take(places) for name, column in chosen.items()}
        parts.append(_part(chosen, family, clock_offset_ns, context))
    return parts


@remembered
def _columns_of(family: str) -> tuple[str, ...]:
    """Return the columns that a family's records have, and what may come with them."""
    names = map(_column_name, RECORDS[family].names or ())
    return (*names, *(("payload",) if REGISTERED[family].payload else ()), *derived_types())


def _known(name: str) -> bool:
    return bool(schema().get_field_index(name) >= 0)


def _checked(batch: pa.RecordBatch, field: pa.Field) -> pa.Array:
    if field.type != schema().field(field.name).type:
        raise RecordingError(f"its column {field.name} is not what tcprism writes")
    return batch.column(field.name)


def _groups(kinds: NDArray[np.uint8], payload: pa.Array | None) -> Iterator[tuple[str, Places]]:
    """Yield the places of each family's records; messages apart by the size of their payload.

    They come in the order of the rings, in which events of the same time stay.
    """
    counts = np.bincount(kinds, minlength=KIND_NUMBERS)
    for family in RECORDS:
        if not counts[numbers_of(family)].any():
            continue
        own = np.zeros(KIND_NUMBERS, np.bool_)
        own[numbers_of(family)] = True
        places = np.flatnonzero(own[kinds])
        if payload is None or not REGISTERED[family].payload:
            classes = np.zeros(len(places), np.intp)
        else:
            lengths = np.diff(_offsets(payload))[places]
            classes = np.searchsorted(_CLASSES, lengths)
        for number in np.flatnonzero(np.bincount(classes)).tolist():
            yield family, places[classes == number]


def _part(columns: dict[str, pa.Array], family: str, offset_ns: int, context: Context) -> Part:
    """Return records of one family from columns that have only theirs."""
    rows = np.zeros(len(columns["kind"]), RECORDS[family])
    values = {
        name: _decode(column, name, rows.dtype[name], offset_ns)
        for name in rows.dtype.names or ()
        if (column := columns.get(_column_name(name))) is not None
    }
    for begin in range(0, len(rows), _ROWS_AT_ONCE):
        some = slice(begin, begin + _ROWS_AT_ONCE)
        for name, column in values.items():
            rows[name][some] = column[some]
    payload = columns.get("payload")
    if payload is None or payload.null_count == len(payload):
        return Part(rows, None, dict(_derived(columns)), context)
    return Part(rows, _payload_table(payload, rows), dict(_derived(columns)), context)


def _decode(column: pa.Array, name: str, dtype: np.dtype[Any], offset_ns: int) -> Any:
    if name == "kind":
        return _kind_numbers(column)
    if name == _TIME:
        moments = _raw(column, np.dtype(np.int64)) - offset_ns
        if (moments < 0).any():
            raise RecordingError("its times are before the start of the machine")
        return moments.view(np.uint64)
    return _raw(column, dtype)


def _kind_numbers(column: pa.DictionaryArray) -> NDArray[np.uint8]:
    """Return the numbers that the kinds have here: those of families made in user space vary."""
    numbers = _raw(column.indices, np.dtype(np.uint8))
    if column.dictionary.equals(_kind_names()):
        return numbers
    table = np.full(KIND_NUMBERS, NO_KIND, np.uint8)
    names = column.dictionary.slice(0, KIND_NUMBERS).to_pylist()
    table[: len(names)] = [NUMBERS.get(name, NO_KIND) for name in names]
    found: NDArray[np.uint8] = table[numbers]
    return found


def _raw(column: pa.Array, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the values of a column of fixed width; what is null has any value."""
    data = column.buffers()[1]
    if data is None:
        return np.zeros((len(column), *dtype.shape), dtype.base)
    values = np.frombuffer(data, dtype.base).reshape(-1, *dtype.shape)
    return values[column.offset : column.offset + len(column)]


def _offsets(column: pa.Array) -> NDArray[np.int32]:
    """Return where each value of a binary column begins, and where the last ends."""
    data = column.buffers()[1]
    offsets = np.zeros(1, np.int32) if data is None else np.frombuffer(data, np.int32)
    return offsets[column.offset : column.offset + len(column) + 1]


def _payload_table(column: pa.Array, rows: NDArray[np.void]) -> NDArray[np.uint8]:
    """Return the payloads as a table; the records say how much of each row counts."""
    offsets = _offsets(column)
    lengths = np.diff(offsets)
    rows["payload_length"] = lengths
    width = max(1, int(lengths.max()))
    if width > PAYLOAD_MAX:
        raise RecordingError(f"a payload has {width:,} bytes, and {PAYLOAD_MAX:,} are the most")
    table = np.zeros((len(rows), width), np.uint8)
    data = np.frombuffer(column.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]
    table[np.arange(width) < lengths[:, None]] = data
    return table


def _derived(
    columns: dict[str, pa.Array],
) -> Iterator[tuple[str, np.ma.MaskedArray[Any, Any]]]:
    for name, json_type in derived_types().items():
        column = columns.get(name)
        if column is None or column.null_count == len(column):
            continue
        null = np.logical_not(_bits(column, 0)) if column.null_count else np.False_
        yield name, np.ma.MaskedArray(_derived_values(column, json_type), null)


def _derived_values(column: pa.Array, json_type: str) -> NDArray[Any]:
    if json_type == "boolean":
        return _bits(column, 1)
    if json_type == "integer":
        return _raw(column, np.dtype(np.int64))
    return texts([escape_text(text or "") for text in column.to_pylist()])


def _bits(column: pa.Array, number: int) -> NDArray[np.bool_]:
    """Return one of a column's buffers of bits."""
    data = np.frombuffer(column.buffers()[number], np.uint8)
    bits = np.unpackbits(data, bitorder="little").view(np.bool_)
    return bits[column.offset : column.offset + len(column)]
