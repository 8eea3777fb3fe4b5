"""Recordings by somebody who means harm: bytes, notes and columns that no tcprism would write."""

from __future__ import annotations

import copy
import io
import json
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from tcprism.events import FAMILIES, Batch
from tcprism.recording.notes import KEY

from .recordings import CLOCK_OFFSET_NS, random_part, recorded
from .session import LENGTH, look, talk

ESCAPES = "\x1b]52;c;SEFDSw==\x07\x1b[31mRED\u202e\x9b1m\u2028\xe9\ud7ff[red]mk[/]\r\n\t\x00"
NESTED = "NESTED"  # becomes a hundred thousand brackets
VALUES: list[Any] = [
    10**30, -(10**30), 2**63, 2**64 - 1, -1, 0, 1, 0.5, float("inf"), float("-inf"), float("nan"),
    True, None, "", "7", ESCAPES, "x" * 100_000, [], [[]], {}, {"a": 1}, [ESCAPES],
    {ESCAPES: ESCAPES}, NESTED, 2**62, 2**31, 2**53,
]  # fmt: skip

Batches = list[tuple[pa.RecordBatch, dict[bytes, bytes]]]


def honest(seed: int) -> bytes:
    """Return a recording of a few connections, or of any records, with names, gaps and a ledger."""
    if seed % 2:
        made = [Batch([look(second), *talk(second)], CLOCK_OFFSET_NS) for second in range(LENGTH)]
    else:
        made = [
            Batch([random_part(family, 5, seed + n) for family in FAMILIES], CLOCK_OFFSET_NS)
            for n in range(3)
        ]
    return recorded(made)


def read(data: bytes) -> tuple[pa.Schema, Batches]:
    """Return a stream's schema, and its batches with their metadata."""
    with pa.ipc.open_stream(data) as stream:
        pairs = stream.iter_batches_with_custom_metadata()
        return stream.schema, [(batch, dict(notes or {})) for batch, notes in pairs]


def written(schema: pa.Schema, batches: Batches) -> bytes:
    """Return a stream."""
    sink = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(sink, schema, options=options) as stream:
        for batch, notes in batches:
            stream.write_batch(batch, custom_metadata=notes)
    return sink.getvalue()


def with_damaged_bytes(chance: random.Random) -> bytes:
    """Change, remove, repeat or add bytes; sizes are numbers of four or eight bytes."""
    data = bytearray(honest(chance.randrange(4)))
    for _ in range(chance.choice([1, 1, 2, 10])):
        place = chance.randrange(len(data))
        kind = chance.choice(["flip", "cut", "insert", "zero", "number", "number", "repeat"])
        if kind == "flip":
            data[place] ^= 1 << chance.randrange(8)
        elif kind == "cut":
            del data[place : place + chance.choice([1, 8, 100, 100_000])]
        elif kind == "insert":
            data[place:place] = chance.randbytes(chance.randrange(100))
        elif kind == "zero":
            data[place : place + 40] = bytes(len(data[place : place + 40]))
        elif kind == "repeat":
            data += data[place:]
        else:
            size, place = chance.choice([4, 8]), place // 8 * 8
            number = chance.choice([-1, -(2**31), 2**31 - 1, 2**20, 2**40, 2**62])
            data[place : place + size] = (number % 2 ** (8 * size)).to_bytes(size, "little")
    return bytes(data)


def with_damaged_notes(chance: random.Random) -> bytes:
    """Put something else in place of a value or a key of the notes, or of the facts."""
    schema, batches = read(honest(chance.randrange(4)))
    places = [dict(schema.metadata), *(notes for _, notes in batches)]
    for _ in range(chance.choice([1, 1, 3])):
        notes = chance.choice(places)
        document = json.loads(notes[KEY])
        _damage(document, chance)
        notes[KEY] = _text(document)
    return written(schema.with_metadata(places[0]), batches)


def _damage(document: Any, chance: random.Random) -> None:
    """Replace something in a tree of lists and objects."""
    node = document
    document.setdefault("gaps", [{"since_ns": 1, "until_ns": 2, "kind": "send", "lost": 5}])
    document.setdefault("ledger", {"entries": [{"kind": "send", "seen": 1}], "remarks": ["one"]})
    document.setdefault("names", {"owner": {"1": {"cgroup": "/a"}}, "drop_reason": {"2": "NONE"}})
    while True:
        keys = [*node] if isinstance(node, dict) else [*range(len(node))]
        if not keys:
            return
        key = chance.choice(keys)
        if not isinstance(node[key], dict | list) or chance.random() < 0.2:
            break
        node = node[key]
    value = copy.deepcopy(chance.choice(VALUES))
    if isinstance(node, dict) and chance.random() < 0.2:
        node[str(value)] = node.pop(key)
    else:
        node[key] = value


def _text(document: Any) -> bytes:
    text = json.dumps(document, ensure_ascii=False)
    return text.replace(f'"{NESTED}"', "[" * 100_000).encode(errors="surrogatepass")


def with_damaged_columns(chance: random.Random) -> bytes:
    """Change values, types and nulls of columns; leave some out."""
    schema, batches = read(honest(chance.randrange(4)))
    name = chance.choice(schema.names)
    change = chance.choice([_extremes, _texts, _payloads, _nulls, _retyped, _dropped])
    seed = chance.random()  # the same for each batch: a stream has one schema
    changed = [(change(batch, name, random.Random(seed)), notes) for batch, notes in batches]
    return written(changed[0][0].schema.with_metadata(schema.metadata), changed)


Change = Callable[[pa.RecordBatch, str, random.Random], pa.RecordBatch]


def _with(batch: pa.RecordBatch, name: str, column: pa.Array) -> pa.RecordBatch:
    place = batch.schema.get_field_index(name)
    return batch.set_column(place, pa.field(name, column.type), column)


def _extremes(batch: pa.RecordBatch, _name: str, chance: random.Random) -> pa.RecordBatch:
    names = [f.name for f in batch.schema if pa.types.is_integer(f.type) or f.name == "time"]
    for name in chance.sample(names, 3):
        kind = batch.schema.field(name).type
        width = kind.bit_width // 8
        values = [0, 1, 2 ** (8 * width - 1), 2 ** (8 * width) - 1, chance.getrandbits(8 * width)]
        raw = b"".join(chance.choice(values).to_bytes(width, "little") for _ in range(len(batch)))
        column = pa.Array.from_buffers(kind, len(batch), [None, pa.py_buffer(raw)])
        batch = _with(batch, name, column)
    return batch


def _texts(batch: pa.RecordBatch, _name: str, chance: random.Random) -> pa.RecordBatch:
    for field in batch.schema:
        if pa.types.is_string(field.type):
            texts = [chance.choice([ESCAPES, None, "=1+1", "x" * 5000]) for _ in range(len(batch))]
            batch = _with(batch, field.name, pa.array(texts, pa.string()))
    return batch


def _payloads(batch: pa.RecordBatch, _name: str, chance: random.Random) -> pa.RecordBatch:
    sizes = [0, 1, 64, 16384, 16385, 1_000_000]
    values = [ESCAPES.encode(errors="replace") + bytes(chance.choice(sizes)) for _ in batch["kind"]]
    return _with(batch, "payload", pa.array(values, pa.binary()))


def _nulls(batch: pa.RecordBatch, name: str, _chance: random.Random) -> pa.RecordBatch:
    return _with(batch, name, pa.nulls(len(batch), batch.schema.field(name).type))


def _retyped(batch: pa.RecordBatch, name: str, chance: random.Random) -> pa.RecordBatch:
    kinds = [pa.int8(), pa.string(), pa.binary(), pa.list_(pa.int64()), pa.null(), pa.float64()]
    return _with(batch, name, pa.nulls(len(batch), chance.choice(kinds)))


def _dropped(batch: pa.RecordBatch, name: str, _chance: random.Random) -> pa.RecordBatch:
    return batch.drop_columns([name])


def zeros(rows: int, width: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return payloads that hardly take any room in a file."""
    return np.zeros((rows, width), np.uint8)
