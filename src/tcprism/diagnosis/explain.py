"""Explain: what limits connections, in words, with the numbers that prove it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tcprism.diagnosis.connections import ends, owners
from tcprism.diagnosis.delta import Delta
from tcprism.diagnosis.rules import RULES, SEEN, Rule
from tcprism.events import Part
from tcprism.events.scopes import shown
from tcprism.events.units import duration, percent

NOTHING = "nothing that limits it can be proven"
IDLE = "application"
_SEEN = [rule.name for rule in SEEN]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One thing that held a connection up, for what share of the time, and the proof.

    `rule` is its name in docs/explain.md. `accuses` is False if it clears TCP and the network.
    """

    rule: str
    title: str
    share: float
    proof: str
    accuses: bool = True


@dataclass(frozen=True, slots=True)
class Explained:
    """A connection or listener, and what can be proven about it, the worst first.

    `owner` is its process, such as curl[812], or "-". `watched_us` is None if not known.
    """

    pid: int | None
    comm: str | None
    container: str | None
    netns: int
    local_ip: str
    local_port: int
    remote_ip: str
    remote_port: int
    state: str
    watched_us: int | None
    verdicts: tuple[Verdict, ...]
    owner: str
    local: str
    remote: str

    @property
    def heading(self) -> str:
        """The owner and both ends, in one line."""
        if self.state == "LISTEN":
            return f"{self.owner} {self.local} LISTEN"
        return f"{self.owner} {self.local} -> {self.remote}"

    def lines(self) -> Iterator[str]:
        """Yield a paragraph."""
        watched = "" if self.watched_us is None else f", watched for {duration(self.watched_us)}"
        yield f"{self.heading}{watched}"
        if not self.verdicts:
            yield f"  {NOTHING}"
        for verdict in self.verdicts:
            yield f"  {percent(verdict.share):>5}  {verdict.title}: {verdict.proof}"


_WHO = (
    "pid",
    "comm",
    "container",
    "netns",
    "local_ip",
    "local_port",
    "remote_ip",
    "remote_port",
    "state",
)


def explained(part: Part, change: Delta) -> list[Explained]:
    """Return what can be proven of each connection; of other sockets only where one is guilty.

    Those listen, or have a port and no peer yet.
    """
    proven = all_verdicts(change)
    connected = (part.rows["remote_port"] != 0).tolist()
    told = [place for place, found in enumerate(proven) if found or connected[place]]
    return _explained(part.take(np.array(told, np.intp)), change, [proven[p] for p in told], told)


def _explained(
    part: Part, change: Delta, proven: list[list[Verdict]], places: list[int]
) -> list[Explained]:
    """Make an object of each record; `places` say where it is in the change."""
    columns: dict[str, list[Any]] = {name: shown(part, name) for name in _WHO}
    columns["owner"] = owners(part)
    columns |= {end: ends(part, end) for end in ("local", "remote")}
    elapsed = change.elapsed_us[places].tolist()
    columns["watched_us"] = [None if math.isnan(us) else round(us) for us in elapsed]
    columns["verdicts"] = [tuple(verdicts) for verdicts in proven]
    rows = zip(*columns.values(), strict=True)
    return [Explained(**dict(zip(columns, row, strict=True))) for row in rows]


def all_verdicts(change: Delta) -> list[list[Verdict]]:
    """Return what the rules can prove of each connection, the worst first."""
    proven: list[list[Verdict]] = [[] for _ in range(len(change))]
    for rule in (*RULES, *SEEN):
        for place, verdict in _proven(rule, change):
            proven[place].append(verdict)
    return [_sorted(verdicts) for verdicts in proven]


def _proven(rule: Rule, change: Delta) -> Iterator[tuple[int, Verdict]]:
    places = np.flatnonzero(rule.holds(change)).tolist()
    if not places:
        return
    shares = rule.share(change)
    for place in places:
        proof = rule.words(change.only(place), 0)
        yield place, Verdict(rule.name, rule.title, float(shares[place]), proof, rule.accuses)


def _sorted(verdicts: list[Verdict]) -> list[Verdict]:
    """Order them; that there is nothing to send is worth a line where nothing else limits it."""
    limited = any(verdict.rule not in (IDLE, *_SEEN) for verdict in verdicts)
    telling = [verdict for verdict in verdicts if verdict.rule != IDLE or not limited]
    return sorted(telling, key=lambda verdict: (not verdict.accuses, -verdict.share))


def verdicts(change: Delta) -> list[Verdict]:
    """Return what the rules can prove of the only connection in a change, the worst first."""
    return all_verdicts(change)[0]


def seen(change: Delta) -> list[Verdict]:
    """Return what segments prove of the only connection in a change."""
    return [verdict for rule in SEEN for _, verdict in _proven(rule, change)]


def lines(part: Part, change: Delta, proven: list[Verdict]) -> Iterator[str]:
    """Yield a paragraph about the only connection in a change."""
    (one,) = _explained(part, change, [proven], [0])
    yield from one.lines()
