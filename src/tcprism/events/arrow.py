"""Batches as Arrow: the public columns with types that follow from their definition.

A text that repeats is dictionary-encoded. What a column says is worked out once for each distinct
value of the wire fields that it reads, not for each record.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tcprism.events.column import Column
from tcprism.events.columns import BY_NAME, COLUMNS
from tcprism.events.kinds import RECORDS, remembered
from tcprism.events.optional import pyarrow
from tcprism.events.part import Part

if TYPE_CHECKING:
    import pyarrow as pa

# Addresses a second time, as 16 bytes: IPv4 as ::ffff:a.b.c.d.
BYTES_OF = {"local_ip_bytes": "local_ip", "remote_ip_bytes": "remote_ip"}
_SELDOM_REPEATED = {"payload_text", "message_text"}


@remembered
def column_names() -> tuple[str, ...]:
    """Return the names of the Arrow columns, in their order."""
    after = {"remote_port": tuple(BYTES_OF)}
    return tuple(name for column in COLUMNS for name in (column.name, *after.get(column.name, ())))


@remembered
def schema(names: tuple[str, ...] | None = None) -> pa.Schema:
    """Return the schema of the columns, of all when none are named."""
    return pyarrow().schema([(name, _type(name)) for name in names or column_names()])


def _type(name: str) -> pa.DataType:
    pa = pyarrow()
    if name in BYTES_OF:
        return pa.binary(16)
    column = BY_NAME[name]
    if name == "time":
        return pa.timestamp("ns", "UTC")
    if name == "payload":
        return pa.binary()
    if column.json_type == "boolean":
        return pa.bool_()
    if column.json_type == "integer":
        return _integer(column)
    return pa.string() if name in _SELDOM_REPEATED else pa.dictionary(pa.int32(), pa.string())


def _integer(column: Column) -> pa.DataType:
    """Return 64 bits for all: a sum in 32, as some libraries have it, would wrap around."""
    wire = None if column.field is None else RECORDS[next(iter(column.families))][column.field]
    return pyarrow().uint64() if wire == np.uint64 else pyarrow().int64()


class Ordered(Protocol):
    """What a batch is made of: parts, and the order in time of all their records."""

    @property
    def parts(self) -> Sequence[Part]: ...
    @property
    def clock_offset_ns(self) -> int: ...
    @property
    def permutation(self) -> NDArray[np.intp]: ...
    @property
    def is_ordered(self) -> bool: ...


def to_record_batch(batch: Ordered, names: Sequence[str] | None = None) -> pa.RecordBatch:
    """Return a batch in time order, with all columns or some."""
    chosen = tuple(names or column_names())
    columns = [_column(batch, name) for name in chosen]
    return pyarrow().RecordBatch.from_arrays(columns, schema=schema(chosen))


def _column(batch: Ordered, name: str) -> pa.Array:
    pa = pyarrow()
    pieces = [_piece(part, name, batch.clock_offset_ns) for part in batch.parts]
    if len(pieces) == 1 and batch.is_ordered:
        return pieces[0]
    together = pa.concat_arrays(pieces or [pa.nulls(0, _type(name))])
    return together.take(numbers(batch.permutation, pa.int64()))


def _piece(part: Part, name: str, clock_offset_ns: int) -> pa.Array:
    """Return a column of a part."""
    pa = pyarrow()
    if name in BYTES_OF:
        return _binary(part.rows[BYTES_OF[name]])
    column = BY_NAME[name]
    if part.family not in column.families:
        return pa.nulls(len(part), _type(name))
    if name == "time":
        moments = part.rows["ts_ns"].astype(np.int64) + clock_offset_ns
        return numbers(moments, _type(name))
    if name == "payload":
        return payload_array(part)
    if column.json_type != "string":
        null = column.mask(part) if column.nullable else None
        return numbers(column.values(part), _type(name), null)
    if column.derived or name in _SELDOM_REPEATED:
        return strings(column.to_list(part)).cast(_type(name))
    return _dictionary(part, column)


def _dictionary(part: Part, column: Column) -> pa.Array:
    """Return a column of texts: each distinct key's text, and which record has which."""
    pa = pyarrow()
    encoded = _binary(_keys(part, fields_read(column))).dictionary_encode()
    places = np.frombuffer(encoded.indices.buffers()[1], np.int32, len(part))
    first = np.empty(len(encoded.dictionary), np.intp)
    first[places[::-1]] = np.arange(len(places) - 1, -1, -1)
    texts = strings(column.to_list(part.take(first))).dictionary_encode()
    return pa.DictionaryArray.from_arrays(texts.indices.take(encoded.indices), texts.dictionary)


def _keys(part: Part, fields: Iterable[str]) -> NDArray[np.uint8]:
    """Return the bytes of some fields of each record, side by side."""
    columns = [np.ascontiguousarray(part.rows[field]) for field in sorted(fields)]
    sizes = [part.rows.dtype[field].itemsize for field in sorted(fields)]
    tables = [
        column.view(np.uint8).reshape(len(part), size)
        for column, size in zip(columns, sizes, strict=True)
    ]
    return tables[0] if len(tables) == 1 else np.concatenate(tables, axis=1)


def _binary(table: NDArray[np.uint8]) -> pa.Array:
    """Return a table of bytes as an Arrow array of its rows."""
    pa = pyarrow()
    rows, width = table.shape
    buffers = [None, pa.py_buffer(np.ascontiguousarray(table))]
    return pa.Array.from_buffers(pa.binary(width), rows, buffers)


# pyarrow.array() would import pandas where that is installed: 0.3 s and 40 MB.


def numbers(
    values: NDArray[Any], arrow_type: pa.DataType, null: NDArray[np.bool_] | None = None
) -> pa.Array:
    """Return numbers, booleans or moments as an Arrow array; a mask tells which are null."""
    pa = pyarrow()
    if arrow_type == pa.bool_():
        data = np.packbits(values.astype(np.bool_), bitorder="little")
    else:
        width = np.dtype(f"{values.dtype.kind}{arrow_type.byte_width}")
        data = np.ascontiguousarray(values, width)
    validity = None if null is None else pa.py_buffer(np.packbits(~null, bitorder="little"))
    return pa.Array.from_buffers(arrow_type, len(values), [validity, pa.py_buffer(data)])


def strings(values: Sequence[str | None]) -> pa.Array:
    """Return texts as an Arrow array, None as null."""
    pa = pyarrow()
    texts = [(value or "").encode() for value in values]
    offsets = np.zeros(len(texts) + 1, np.int32)
    np.cumsum(np.fromiter(map(len, texts), np.int32, len(texts)), out=offsets[1:])
    present = np.fromiter((value is not None for value in values), np.bool_, len(texts))
    buffers = (np.packbits(present, bitorder="little"), offsets, b"".join(texts))
    return pa.Array.from_buffers(pa.string(), len(texts), list(map(pa.py_buffer, buffers)))


def payload_array(part: Part) -> pa.Array:
    """Return the captured payloads, null where there is none."""
    pa = pyarrow()
    if part.payload is None:
        return pa.nulls(len(part), pa.binary())
    lengths = part.payload_lengths()
    offsets = np.zeros(len(part) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    captured = part.payload[np.arange(part.payload.shape[1]) < lengths[:, None]]
    present = np.packbits(lengths > 0, bitorder="little")
    buffers = [pa.py_buffer(present), pa.py_buffer(offsets), pa.py_buffer(captured)]
    return pa.Array.from_buffers(pa.binary(), len(part), buffers)


class _Watched(np.ndarray[Any, np.dtype[np.void]]):
    """Records that note which of their fields are read."""

    read: set[str]

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, str):
            self.read.add(index)
            return np.asarray(self)[index]
        return super().__getitem__(index)


@remembered
def fields_read(column: Column) -> frozenset[str]:
    """Return the wire fields that a column reads, found by watching it."""
    read: set[str] = set()
    for family in column.families:
        rows = np.zeros(1, RECORDS[family]).view(_Watched)
        rows.read = read
        part = Part(rows, np.zeros((1, 1), np.uint8))
        column.values(part)
        column.mask(part)
    return frozenset(read)
