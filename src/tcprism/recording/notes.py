"""What a recording holds beside the records: facts at its head, notes with each record batch.

Both are JSON in Arrow's own metadata, under one key. Untrusted like everything in a file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any

from tcprism.errors import RecordingError
from tcprism.events.escape import escape_text
from tcprism.events.facts import Facts
from tcprism.events.ledger import Account, Entry, Ledger
from tcprism.events.optional import need
from tcprism.stages.retransmits import unjoined

KEY = b"tcprism"
VERSION = 1


@dataclass(frozen=True, slots=True)
class Gap:
    """Events of one kind, lost or not in the sample, between two times of CLOCK_MONOTONIC."""

    since_ns: int
    until_ns: int
    kind: str
    lost: int


def encode(values: Mapping[str, Any]) -> dict[bytes, bytes]:
    """Return Arrow metadata."""
    return {KEY: json.dumps(values, separators=(",", ":")).encode()}


def decode(metadata: Mapping[bytes, bytes] | None) -> Any:
    """Return the notes with a batch (notes_schema.Notes). Raises RecordingError, ExtraMissing."""
    schema = _schema()
    return schema.decode(_json(metadata), schema.Notes)


def _schema() -> Any:
    need("msgspec", "arrow")
    return import_module("tcprism.recording.notes_schema")


def _json(metadata: Mapping[bytes, bytes] | None) -> bytes:
    try:
        return (metadata or {})[KEY]
    except KeyError as error:
        raise RecordingError("it is not a recording of tcprism's, or it is damaged") from error


def encode_facts(facts: Facts) -> dict[bytes, bytes]:
    """Return the metadata of a recording's schema."""
    return encode({"version": VERSION, **asdict(facts)})


def decode_facts(metadata: Mapping[bytes, bytes] | None) -> Facts:
    """Return the facts; keys that a later tcprism added are left out. Raises RecordingError."""
    schema, data = _schema(), _json(metadata)
    version = schema.decode(data, schema.Version).version
    if version > VERSION:
        raise RecordingError(
            f"its format has version {version}, this tcprism knows {VERSION}: take a newer tcprism"
        )
    note = schema.decode(data, schema.FactsNote)
    return Facts(**{name: getattr(note, name) for name in Facts.__dataclass_fields__})


def encode_ledger(ledger: Ledger) -> dict[str, Any]:
    """Return a ledger as JSON has it; what is 0 is left out."""
    entries = [
        {name: value for name, value in asdict(entry).items() if value} for entry in ledger.entries
    ]
    return {
        "entries": entries,
        "unremembered": ledger.unremembered,
        "counts": dict(ledger.counts),
        "remarks": ledger.remarks,
    }


def decode_ledger(note: Any) -> Ledger:
    """Return the ledger of a note (notes_schema.LedgerNote)."""
    counts = Entry.__dataclass_fields__
    entries = tuple(Entry(**{name: getattr(e, name) for name in counts}) for e in note.entries)
    stages = _of_stages(note)
    return Ledger(entries, note.unremembered, stages.counts, stages.remarks)


def _of_stages(note: Any) -> Account:
    """Return what stages accounted for; the first recordings have one number of one stage."""
    if note.unjoined is not None:
        return unjoined(note.unjoined)
    counts = {escape_text(name): count for name, count in note.counts.items()}
    return Account(counts=counts, remarks=note.remarks)


def decode_gaps(notes: Iterable[Any]) -> list[Gap]:
    """Return gaps (notes_schema.GapNote)."""
    return [Gap(note.since_ns, note.until_ns, note.kind, note.lost) for note in notes]
