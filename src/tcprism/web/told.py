"""Told: what a store keeps, as a recording that can be explained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from tcprism.diagnosis.explanation import Explanation, explain_recording
from tcprism.events import Batch
from tcprism.events.facts import Facts
from tcprism.events.ledger import Ledger
from tcprism.web.store import Kept, Store

SHOWN_MAX = 200  # connections


class Told:
    """Events of a store: iterate over their `batches()`, as they came."""

    damaged = False
    trouble: Sequence[str] = ()

    def __init__(self, kept: Sequence[Kept], ledger: Ledger, facts: Facts) -> None:
        self._kept = kept
        self.ledger = ledger
        self.facts = facts

    def batches(self) -> Iterator[Batch]:
        """Yield batches."""
        for _, kept in groupby(self._kept, lambda one: one.batch):
            yield Batch([one.part for one in kept])


def explained(store: Store, kept: Sequence[Kept]) -> dict[str, Any]:
    """Return what can be proven by some of the events of a store, as JSON has it."""
    return as_json(explain_recording(Told(kept, store.ledger, store.facts or Facts(()))))


def as_json(found: Explanation) -> dict[str, Any]:
    """Return an explanation: verdicts with how many have them, and connections, the worst first."""
    telling = sorted(
        (one for one in found if one.verdicts),
        key=lambda one: (not one.verdicts[0].accuses, -one.verdicts[0].share),
    )
    verdicts: dict[str, dict[str, Any]] = {}
    for one in telling:
        for verdict in one.verdicts:
            entry = verdicts.setdefault(
                verdict.rule,
                {
                    "rule": verdict.rule,
                    "title": verdict.title,
                    "accuses": verdict.accuses,
                    "count": 0,
                },
            )
            entry["count"] += 1
    return {
        "total": len(found),
        "silent": sum(not one.verdicts for one in found),
        "snapshots": found.snapshots,
        "lost": found.lost,
        "verdicts": sorted(verdicts.values(), key=lambda entry: -entry["count"]),
        "connections": [
            {
                "heading": one.heading,
                "local": one.local,
                "remote": one.remote,
                "watched": None if one.watched_us is None else one.watched_us * 1000,
                "verdicts": [
                    {
                        "title": verdict.title,
                        "share": verdict.share,
                        "proof": verdict.proof,
                        "accuses": verdict.accuses,
                    }
                    for verdict in one.verdicts
                ],
            }
            for one in telling[:SHOWN_MAX]
        ],
    }
