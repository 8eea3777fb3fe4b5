"""`tcprism explain`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import click
import numpy as np

from tcprism.cli import options
from tcprism.cli.recordings import print_trouble
from tcprism.cli.session import Limits, Stop
from tcprism.cli.targets import find_target
from tcprism.diagnosis.delta import LISTEN, Delta
from tcprism.diagnosis.evidence import evidence
from tcprism.diagnosis.explain import NOTHING, Verdict, lines, verdicts
from tcprism.diagnosis.lives import lives
from tcprism.diagnosis.port_exhaustion import Exhaustion, exhausted
from tcprism.diagnosis.survey import Survey, looks_of
from tcprism.errors import UsageError
from tcprism.events import Batch, Part
from tcprism.events._wire import PREFIXES_MAX
from tcprism.filters import Criteria, parse_network
from tcprism.recording.reader import Recording
from tcprism.sources.snapshots import Snapshots
from tcprism.sources.tracing import Request, Tracing

KINDS = ("send", "recv", "retransmit")
PAUSE = 0.1  # seconds between two looks
MANY, MANY_PAUSE = 1000, 1.0  # so many sockets are looked at less often

EPILOG = """\b
Examples:
  tcprism explain                        every connection of this machine, for ten seconds
  tcprism explain 1234                   those of a process and its children
  tcprism explain nginx --duration 30    those of a thread name
  tcprism explain 10.0.0.7:443           those with a host and a port, at either end
  tcprism explain run.tcpr               those of a recording

docs/explain.md has every rule, its threshold and where that comes from."""


@click.command(epilog=EPILOG)
@click.argument("target", required=False, metavar="[PID|COMM|HOST[:PORT]|FILE]")
@click.option(
    "--duration", default=10.0, show_default=True, metavar="SECONDS", help="Watch so long."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    help="A paragraph a connection, or one JSON object a line.",
)
def command(target: str | None, duration: float, form: str) -> None:
    """Tell what limits connections, with the numbers that prove it."""
    options.parse_duration(duration)
    chosen = find_target(target) if target else Criteria()
    if isinstance(chosen, Path):
        part, change, events = read(chosen)
    else:
        part, change, events = watch(chosen, duration)
    found = list(explain(part, change, events))
    short = [] if isinstance(chosen, Path) else list(exhausted(_namespaces(part)))
    if not found:
        raise UsageError("no connection was there to explain; `tcprism top` shows those that are")
    if form == "json":
        write_json(found, short)
    else:
        write_text(found)
        print("".join(f"{shortage}\n" for shortage in short), end="")


def _namespaces(part: Part) -> Iterator[tuple[int, int]]:
    """Yield each network namespace and a process that has a socket of it."""
    return zip(part.rows["netns"].tolist(), part.rows["pid"].tolist(), strict=True)


Explained = tuple[Part, Delta, list[Verdict]]


def watch(chosen: Criteria, duration: float) -> tuple[Part, Delta, Batch]:
    """Look at connections for some time, with hooks on for what the counters do not tell."""
    survey, parts = Survey(), list[Part]()
    with ExitStack() as stack:
        snapshots = stack.enter_context(Snapshots(chosen))
        monitors = [
            stack.enter_context(Tracing(Request(KINDS, chosen, payload=0))),
            stack.enter_context(Tracing(Request(("drop",), _hosts(snapshots.take()), payload=0))),
        ]
        stop = stack.enter_context(Stop(Limits(duration=duration), sys.stderr.buffer, None))
        print(f"watching for {duration:g} s; Ctrl-C ends it sooner", file=sys.stderr, flush=True)
        while not stop.reached:
            look = _look(snapshots, survey)
            parts += [part for monitor in monitors for part in monitor.read().parts]
            stop.wait(PAUSE if len(look) < MANY else MANY_PAUSE)
        _look(snapshots, survey)
        for monitor in monitors:
            parts += _rest(monitor)
    return *survey.result(), Batch(parts)


def _look(snapshots: Snapshots, survey: Survey) -> Part:
    (part,) = snapshots.take().parts
    survey.add(part)
    return part


def _rest(monitor: Tracing) -> Iterator[Part]:
    """Take the hooks off and yield what they left."""
    monitor.stop()
    while len(batch := monitor.drain()):
        yield from batch.parts


def _hosts(batch: Batch) -> Criteria:
    """Return the filter that the connections' own addresses pass.

    What a host drops has no owner yet, and the peer may be another namespace of this host.
    """
    hosts = sorted(set(batch["local_ip"].tolist()))
    return Criteria(hosts=tuple(map(parse_network, hosts[:PREFIXES_MAX])))


def read(path: Path) -> tuple[Part, Delta, Batch]:
    """Return what a recording tells: of its snapshots, or else of connections that were closed."""
    recording = Recording(path)
    survey, parts = Survey(), list[Part]()
    for batch in recording.batches():
        for part in batch.parts:
            if part.family == "snapshot":
                for look in looks_of(part):
                    survey.add(look)
            else:
                parts.append(part)
    print_trouble(recording)
    part, change = survey.result()
    if not len(part):
        part, change = lives(parts)
    return part, change, Batch(parts)


def explain(part: Part, change: Delta, events: Batch) -> Iterator[Explained]:
    """Yield each connection with what can be proven of it; listeners only where they are guilty."""
    for place in range(len(part)):
        own, grown = part.take(slice(place, place + 1)), change.only(place)
        proven = verdicts(grown, evidence(events, own.rows[0]))
        if proven or own.rows["state"][0] != LISTEN:
            yield own, grown, proven


def write_text(found: Iterable[Explained]) -> None:
    """Print a paragraph each: first those with something to say, the worst above."""
    telling = [one for one in found if one[2]]
    silent = [one for one in found if not one[2]]
    telling.sort(key=lambda one: (not one[2][0].accuses, -one[2][0].share))
    for part, change, proven in telling if len(silent) > len(telling) + 10 else telling + silent:
        print("\n".join(lines(part, change, proven)))
    if len(silent) > len(telling) + 10:
        print(f"of {len(silent)} other connections {NOTHING}")


def write_json(found: Iterable[Explained], short: Iterable[Exhaustion]) -> None:
    """Print one JSON object a connection, and one a destination that takes nearly all ports."""
    for shortage in short:
        print(json.dumps({"rule": "local-ports", **asdict(shortage)}))
    for part, change, proven in found:
        event = next(iter(Batch([part])))
        elapsed = float(change.elapsed_us[0])
        verdicts_json = [
            {
                "rule": verdict.rule,
                "title": verdict.title,
                "share": round(verdict.share, 4),
                "proof": verdict.proof,
                "accuses": verdict.accuses,
            }
            for verdict in proven
        ]
        print(
            json.dumps(
                {
                    **{name: getattr(event, name) for name in _WHO},
                    "watched_us": None if np.isnan(elapsed) else round(elapsed),
                    "verdicts": verdicts_json,
                }
            )
        )


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
