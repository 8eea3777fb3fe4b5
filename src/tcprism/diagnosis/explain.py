"""Explain: what limits a connection, in words with the numbers that prove them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from tcprism.diagnosis.connections import ends, owners
from tcprism.diagnosis.delta import Delta, microseconds
from tcprism.diagnosis.evidence import Evidence
from tcprism.diagnosis.rules import MOST, RULES
from tcprism.events import Part
from tcprism.events.units import duration, percent

NOTHING = "nothing that limits it can be proven"
SLOW_US = 1_000  # an answer that comes sooner is no slow one
EXPLAINED_BY_LOSS = ("loss", "retransmission-storm")


@dataclass(frozen=True, slots=True)
class Verdict:
    """One thing that held a connection up, in which share of the time, and the proof.

    `accuses` is False for what clears TCP and the network.
    """

    rule: str
    title: str
    share: float
    proof: str
    accuses: bool = True


def verdicts(change: Delta, found: Evidence | None = None) -> list[Verdict]:
    """Return what the rules can prove of the only connection in a change, the worst first."""
    proven = [
        Verdict(rule.name, rule.title, share, rule.words(change, 0), rule.accuses)
        for rule in RULES
        if (share := float(rule.share(change)[0])) >= rule.threshold
    ]
    if found:
        proven = list(_with_events(proven, change, found))
    return sorted(proven, key=lambda verdict: (not verdict.accuses, -verdict.share))


def _with_events(proven: list[Verdict], change: Delta, found: Evidence) -> Iterator[Verdict]:
    slow = slow_peer(change, found)
    for verdict in proven:
        if verdict.rule in EXPLAINED_BY_LOSS:
            yield replace(verdict, proof=f"{verdict.proof}; {where_lost(found)}")
        elif not (slow and verdict.rule == "application"):  # it only waits for the answer
            yield verdict
    if slow:
        yield slow


def slow_peer(change: Delta, found: Evidence) -> Verdict | None:
    """Tell whether the time went by waiting for answers, beyond what the network takes.

    Only who asks waits for answers: that is the end with the higher port, which is rarely a
    server's. What a server waits for is the next question.
    """
    asks = change.after["local_port"][0] > change.after["remote_port"][0]
    if not asks or not len(found.waits_us):
        return None
    srtt = float(np.nan_to_num(microseconds(change.after, "srtt_us"))[0])
    thinking = (found.waits_us - srtt).clip(0)
    elapsed = float(change.elapsed_us[0])
    share = min(float(thinking.sum()) / elapsed, 1.0) if elapsed > 0 else 0.0
    median = float(np.median(thinking))
    if share < MOST or median < max(SLOW_US, srtt):
        return None
    proof = (
        f"{len(thinking)} answers, half of them after {duration(median)} or more,"
        f" of which the network takes {duration(srtt)}"
    )
    return Verdict("slow-peer", "the peer takes its time to answer", share, proof)


def where_lost(found: Evidence) -> str:
    """Say whether segments were lost on this host, and why they were sent again."""
    causes = ", ".join(f"{count} {name}" for name, count in found.retransmits.most_common())
    because = f" (sent again: {causes})" if causes else ""
    if not found.drops:
        return f"this host is not seen to drop any: they were lost out there{because}"
    reasons = ", ".join(f"{count} {name}" for name, count in found.drops.most_common(3))
    return f"this host dropped {found.drops.total()}: {reasons}{because}"


def heading(part: Part) -> str:
    """Return who talks to whom."""
    return f"{owners(part)[0]} {ends(part, 'local')[0]} -> {ends(part, 'remote')[0]}"


def lines(part: Part, change: Delta, proven: list[Verdict]) -> Iterator[str]:
    """Yield a paragraph about one connection."""
    elapsed = float(change.elapsed_us[0])
    watched = "" if math.isnan(elapsed) else f", watched for {duration(elapsed)}"
    yield f"{heading(part)}{watched}"
    if not proven:
        yield f"  {NOTHING}"
    for verdict in proven:
        yield f"  {percent(verdict.share):>5}  {verdict.title}: {verdict.proof}"
