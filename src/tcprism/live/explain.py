"""Explain: what limits a connection, in words with the numbers that prove them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tcprism.events import Part
from tcprism.live.change import Change
from tcprism.live.connections import ends, owners
from tcprism.live.rules import RULES
from tcprism.live.units import percent
from tcprism.sinks.units import duration

NOTHING = "nothing that limits it can be proven"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One thing that held a connection up, in which share of the time, and the proof.

    `accuses` is False for what clears TCP and the network.
    """

    rule: str
    title: str
    share: float
    proof: str
    accuses: bool


def verdicts(change: Change) -> list[Verdict]:
    """Return what the rules can prove of the only connection in a change, the worst first."""
    found = [
        Verdict(rule.name, rule.title, share, rule.words(change, 0), rule.accuses)
        for rule in RULES
        if (share := float(rule.share(change)[0])) >= rule.threshold
    ]
    return sorted(found, key=lambda verdict: (not verdict.accuses, -verdict.share))


def heading(part: Part) -> str:
    """Return who talks to whom."""
    return f"{owners(part)[0]} {ends(part, 'local')[0]} -> {ends(part, 'remote')[0]}"


def lines(part: Part, change: Change, found: list[Verdict]) -> Iterator[str]:
    """Yield a paragraph about one connection."""
    yield f"{heading(part)}, watched for {duration(change.elapsed_us[0])}"
    if not found:
        yield f"  {NOTHING}"
    for verdict in found:
        yield f"  {percent(verdict.share):>5}  {verdict.title}: {verdict.proof}"
