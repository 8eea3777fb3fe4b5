"""Recordings for tests: batches of every family, arbitrary bytes in every field."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tcprism.events import FAMILIES, KINDS, Batch, Part
from tcprism.events.context import Context, Owner
from tcprism.events.facts import Facts
from tcprism.events.kinds import RECORDS
from tcprism.recording.schema import derived_types
from tcprism.recording.writer import Writer
from tcprism.sinks import Sink
from tcprism.sinks.json_lines import JsonLines
from tcprism.sinks.text import Text

CLOCK_OFFSET_NS = 1_767_225_600_000_000_000  # 2026-01-01T00:00:00Z
FACTS = Facts(kinds=KINDS, payload=64, filters={"port": ("443",)}, hooks={"message": "a hook"})


def owner(cgroup_id: int) -> Owner:
    """Return an owner that is different for each cgroup, for some none."""
    return Owner() if cgroup_id % 3 == 0 else Owner(cgroup=f"/a/{cgroup_id}", container="box")


def interface(netns: int, index: int) -> str | None:
    return f"eth{netns % 9}.{index}" if index % 2 else None


CONTEXT = Context(
    owner,
    lambda number: f"DROP_{number}" if number % 2 else None,
    lambda _: "RESET",
    interface,
)


def random_part(family: str, count: int, seed: int, width: int | None = 64) -> Part:
    """Return records with arbitrary bytes in every field, but a kind of the family and a time."""
    random = np.random.default_rng(seed)
    dtype = RECORDS[family]
    # No padding: what lies between the fields is nobody's and is not recorded.
    rows = np.zeros(count, dtype)
    for name in dtype.names or ():
        rows[name] = np.frombuffer(random.bytes(count * dtype[name].itemsize), dtype[name])
    rows["kind"] = random.choice([KINDS.index(kind) for kind in FAMILIES[family]], count)
    rows["family"] = random.choice([4, 6], count)
    scoped = (rows["family"] == 6) & (random.integers(0, 2, count) == 1)  # link-local, RFC 4007
    rows["local_ip"][scoped, :2] = 0xFE, 0x80
    rows["scope_id"][~scoped] = 0
    rows["ts_ns"] = np.sort(random.integers(0, 1 << 40, count))
    derived = {
        name: np.ma.MaskedArray(
            _values(random, kind, count),
            random.integers(0, 2, count).astype(bool),
        )
        for name, kind in (derived_types().items() if family == "loss" else ())
    }
    payload = None
    if family == "message" and width is not None:
        payload = random.integers(0, 256, (count, width), np.uint8)
        rows["payload_length"] = random.integers(0, width + 1, count)
    elif family == "message":
        rows["payload_length"] = 0
    return Part(rows, payload, derived, CONTEXT)


def _values(random: np.random.Generator, kind: str, count: int) -> np.ndarray[Any, Any]:
    if kind == "string":
        return _texts(random, count)
    numbers = random.integers(0, 1 << 40, count)
    return numbers % 2 == 1 if kind == "boolean" else numbers


def _texts(random: np.random.Generator, count: int) -> np.ndarray[tuple[int], np.dtype[np.object_]]:
    texts = np.empty(count, object)
    texts[:] = [f"text {number}" for number in random.integers(0, 5, count).tolist()]
    return texts


@st.composite
def batches(draw: st.DrawFn) -> list[Batch]:
    """Draw a few batches of some families."""
    made = []
    for _ in range(draw(st.integers(0, 4))):
        families = draw(st.lists(st.sampled_from([*FAMILIES]), max_size=5, unique=True))
        parts = [
            random_part(
                family,
                draw(st.integers(0, 20)),
                8 * draw(st.integers(0, 1 << 27)) + place,  # else two may have the same times
                draw(st.sampled_from([None, 1, 64, 300])),
            )
            for place, family in enumerate(families)
        ]
        made.append(Batch(parts, CLOCK_OFFSET_NS + draw(st.integers(0, 3))))
    return made


def recorded(made: Iterable[Batch], *, flush: bool = True, close: bool = True) -> bytes:
    """Return a recording of batches; with `flush` each is written at once."""
    file = io.BytesIO()
    writer = Writer(file, FACTS)
    for batch in made:
        writer.write(batch)
        if flush:
            writer.flush()
    if close:
        writer.close()
    return file.getvalue()


def written(path: Path, made: Sequence[Batch]) -> Path:
    """Write a recording to a file."""
    path.write_bytes(recorded(made))
    return path


def shown(made: Iterable[Batch]) -> tuple[bytes, bytes]:
    """Return what the text and the JSON format make of batches."""
    outputs = io.BytesIO(), io.BytesIO()
    sinks: list[Sink] = [Text(outputs[0], color=True), JsonLines(outputs[1])]
    for batch in made:
        for sink in sinks:
            sink.write(batch)
    return outputs[0].getvalue(), outputs[1].getvalue()
