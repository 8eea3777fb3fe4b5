"""What a recording holds beside the records: facts at its head, notes with each record batch.

Both are JSON in Arrow's own metadata, under one key. Untrusted like everything in a file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tcprism.errors import RecordingError
from tcprism.events.escape import escape
from tcprism.events.facts import Facts
from tcprism.events.ledger import Account, Entry, Ledger
from tcprism.stages.retransmits import unjoined

KEY = b"tcprism"
VERSION = 1


@dataclass(frozen=True, slots=True)
class Gap:
    """Events of one kind that happened between two moments of CLOCK_MONOTONIC and got lost."""

    since_ns: int
    until_ns: int
    kind: str
    lost: int


_TEXTS = ("host", "kernel", "architecture", "started", "tcprism")


def encode(values: Mapping[str, Any]) -> dict[bytes, bytes]:
    """Return Arrow metadata."""
    return {KEY: json.dumps(values, separators=(",", ":")).encode()}


def decode(metadata: Mapping[bytes, bytes] | None) -> dict[str, Any]:
    """Return what `encode` was given. Raises RecordingError."""
    try:
        values = json.loads((metadata or {})[KEY])
    except (KeyError, ValueError, RecursionError) as error:
        raise RecordingError("it is not a recording of tcprism's, or it is damaged") from error
    if not isinstance(values, dict):
        raise RecordingError("its notes are damaged")
    return values


def encode_facts(facts: Facts) -> dict[bytes, bytes]:
    """Return the metadata of a recording's schema."""
    return encode({"version": VERSION, **asdict(facts)})


def decode_facts(metadata: Mapping[bytes, bytes] | None) -> Facts:
    """Return the facts; keys that a later tcprism added are left out. Raises RecordingError."""
    values = decode(metadata)
    version = values.get("version")
    if not isinstance(version, int) or version > VERSION:
        raise RecordingError(
            f"its format has version {version}, this tcprism knows {VERSION}: take a newer tcprism"
        )
    try:
        return Facts(
            kinds=tuple(map(str, values["kinds"])),
            payload=int(values.get("payload", 0)),
            filters={
                str(option): tuple(map(str, texts))
                for option, texts in values.get("filters", {}).items()
            },
            hooks={str(family): str(hook) for family, hook in values.get("hooks", {}).items()},
            **{name: str(values.get(name, "")) for name in _TEXTS},
        )
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise RecordingError("its facts are damaged") from error


_REMARKS_MAX, _REMARK_LENGTH = 64, 400  # a file may say anything


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


def decode_ledger(values: Any) -> Ledger:
    """Return the ledger of a note. Raises RecordingError."""
    try:
        entries = tuple(map(_entry, values["entries"]))
        stages = _of_stages(values)
        unremembered = int(values.get("unremembered", 0))
        return Ledger(entries, unremembered, stages.counts, stages.remarks)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise RecordingError("its ledger is damaged") from error


def _of_stages(values: Mapping[str, Any]) -> Account:
    """Return what stages accounted for; the first recordings have one number of one stage."""
    if "unjoined" in values:
        return unjoined(int(values["unjoined"]))
    counts = {_text(name): int(count) for name, count in values.get("counts", {}).items()}
    remarks = values.get("remarks", ())[:_REMARKS_MAX]
    return Account(counts=counts, remarks=tuple(map(_text, remarks)))


def _text(value: object) -> str:
    return escape(str(value)[:_REMARK_LENGTH].encode())


def _entry(values: Mapping[str, Any]) -> Entry:
    counts = (name for name in Entry.__dataclass_fields__ if name != "kind")
    numbers = {name: int(values.get(name, 0)) for name in counts}
    return Entry(kind=str(values["kind"]), **numbers)


def decode_gaps(entries: Any) -> list[Gap]:
    """Return the gaps of a note. Raises RecordingError."""
    try:
        return [
            Gap(int(e["since_ns"]), int(e["until_ns"]), str(e["kind"]), int(e["lost"]))
            for e in entries
        ]
    except (TypeError, KeyError, ValueError) as error:
        raise RecordingError("its gaps are damaged") from error
