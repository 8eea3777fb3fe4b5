"""`tcprism explain`."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from tcprism import interrupts
from tcprism.cli import options
from tcprism.cli.recordings import print_trouble
from tcprism.cli.session import Limits, Stop
from tcprism.cli.tls_options import refuse_readers, refuse_recordings, tls_option
from tcprism.diagnosis.explain import NOTHING, Explained
from tcprism.diagnosis.explanation import Explanation, explain_recording
from tcprism.diagnosis.inquiry import Inquiry
from tcprism.diagnosis.measures import LEAST_SNAPSHOTS
from tcprism.diagnosis.request_evidence import Server
from tcprism.diagnosis.targets import both, find_target
from tcprism.errors import UsageError
from tcprism.events.units import counted, duration
from tcprism.filter_texts import parse, parse_recorded
from tcprism.filters import Criteria
from tcprism.recording.reader import Recording
from tcprism.recording.selection import Selection

WORST = 5  # connections that are shown in full, the worst of each verdict first
_TO_EXPLAIN = 60.0  # seconds that working out the explanation may take
TOP = 3  # processes and peers that a line of the summary names

EPILOG = """\b
Examples:
  tcprism explain                        every connection of this machine, for ten seconds
  tcprism explain 1234                   a process and its children
  tcprism explain nginx --duration 30    threads with this name
  tcprism explain 10.0.0.7:443           one host and port, at either end
  tcprism explain --port 443 --all       the filters of `trace`; every connection in full
  tcprism explain --tls --port 443       also by the requests inside TLS (docs/tls.md)
  tcprism explain run.tcpr               a recording

docs/explain.md lists every rule with its threshold and the source of that threshold."""


@click.command(epilog=EPILOG)
@click.argument("target", required=False, metavar="[PID|COMM|HOST[:PORT]|FILE]")
@options.filter_options
@click.option(
    "--duration",
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to watch.",
)
@tls_option
@options.memory_option
@click.option("--all", "everything", is_flag=True, help="Explain every connection in full.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    help="A summary and the worst connections, or one JSON object per connection.",
)
def command(**given: Any) -> None:
    """Explain what limits connections, with the numbers that prove it."""
    options.parse_duration(given["duration"])
    memory = options.parse_memory(given["max_memory"])
    target = find_target(given["target"]) if given["target"] else Criteria()
    follow, texts = given.pop("follow"), options.filter_texts(given)
    if isinstance(target, Path):
        if given["tls"]:
            refuse_recordings()
        select = Selection(parse_recorded(texts, follow))
        found = explain_recording(Recording(target, select, memory=memory))
    else:
        if given["tls"]:
            refuse_readers(given)
        found = _watch(both(target, parse(texts, follow=follow)), given["duration"], given["tls"])
    nothing = not found.states and not found.connections
    if not nothing:
        _tell(found, given)
    print_trouble(found)
    if nothing:
        raise UsageError("there is no such connection to explain; `tcprism top` shows all")


def _tell(found: Explanation, given: dict[str, Any]) -> None:
    for line in doubts(found):
        print(line, file=sys.stderr)
    write = write_json if given["form"] == "json" else write_text
    write(found, given["everything"])


def _watch(chosen: Criteria, seconds: float, tls: bool) -> Explanation:
    with (
        Inquiry(chosen, tls) as inquiry,
        Stop(Limits(duration=seconds), sys.stderr.buffer, None) as stop,
    ):
        for line in (f"watching for {seconds:g} s; Ctrl-C ends it sooner", *inquiry.lines):
            print(line, file=sys.stderr, flush=True)
        inquiry.watch(stop)
        interrupts.alive(_TO_EXPLAIN)
        return inquiry.explanation()


def doubts(found: Explanation) -> Iterator[str]:
    """Yield what an explanation may lack."""
    if 0 < found.snapshots < LEAST_SNAPSHOTS:
        few = f"{found.snapshots} snapshots are too few"
        yield f"{few} to prove anything about states: watch longer"
    if found.pauses:
        longest = max(pause.seconds for pause in found.pauses)
        yield (
            f"snapshots are missing: {counted(len(found.pauses), 'gap')} of up to {longest:.2g} s;"
            " the counters still cover them, but states in between were not seen"
        )
    if found.skipped:
        yield (
            f"too much at once: requests were not read off {counted(found.skipped, 'event')},"
            " so none is named as pending (a filter helps)"
        )
    if not found.segments:
        yield "too many segments at once: what they prove is not told (a filter helps)"
    if found.lost:
        yield f"missing: {counted(found.lost, 'event')}, and what they would have proven"


def write_text(found: Explanation, everything: bool) -> None:
    """Print a summary, then the worst connections in full, or all."""
    telling = sorted(
        (one for one in found if one.verdicts),
        key=lambda one: (not one.verdicts[0].accuses, -one.verdicts[0].share),
    )
    silent = [one for one in found if not one.verdicts]
    if len(found) != 1:
        print("\n".join(summary(found, telling, silent)))
    if not len(found):
        print("none of them is a connection")
    shown = telling + silent if everything or len(found) <= WORST else _worst(telling)
    for one in shown:
        print("\n".join(one.lines()))
    if len(shown) < len(found):
        more = " more" if shown else ""
        print(f"{len(found) - len(shown)}{more} are not shown: --all shows every one")
    for shortage in found.exhausted:
        print(shortage)


def _worst(telling: Sequence[Explained]) -> list[Explained]:
    """Choose which to show: the worst of each verdict come before the second worst of any.

    Verdicts that accuse nobody appear only in the summary.
    """
    rank: Counter[str] = Counter()
    ranked = []
    for place, one in enumerate(telling):
        if not one.verdicts[0].accuses:
            continue
        rule = one.verdicts[0].rule
        ranked.append((rank[rule], place))
        rank[rule] += 1
    return [telling[place] for _, place in sorted(ranked)[:WORST]]


def summary(
    found: Explanation, telling: Sequence[Explained], silent: Sequence[Explained]
) -> Iterator[str]:
    """Yield how many sockets there are of each state, and connections with each verdict."""
    states = ", ".join(f"{count} {state}" for state, count in found.states.items())
    if found.states:
        snapshots = counted(found.snapshots, "snapshot")
        basis = snapshots if found.snapshots else "from events alone"
        yield f"{counted(sum(found.states.values()), 'socket')}: {states}; {basis}"
    titles: dict[str, list[Explained]] = {}
    for one in telling:
        for verdict in one.verdicts:
            titles.setdefault(verdict.title, []).append(one)
    for title, those in sorted(titles.items(), key=lambda item: -len(item[1])):
        who = _most(one.owner for one in those)
        peers = _most(one.remote_ip for one in those if one.state != "LISTEN")
        yield f"{len(those):>5}  {title}: {who}" + (f"; with {peers}" if peers else "")
    if silent:
        yield f"{len(silent):>5}  {NOTHING}"
    yield from map(waited_for, found.servers[:WORST])
    yield ""


def waited_for(servers: Sequence[Server]) -> str:
    """Say how long a process waited for each of several servers, the longest first."""
    told = "; ".join(map(_waited_for_one, servers[:TOP]))
    more = f" and {len(servers) - TOP} more" if len(servers) > TOP else ""
    return f"       {servers[0].process} waited for {told}{more}"


def _waited_for_one(server: Server) -> str:
    about = [counted(server.count, "request")] if server.count else []
    if server.slowest:
        took = f" {duration(server.slowest.took_ns / 1000)}" if server.count > 1 else ""
        about.append(("the slowest " if took else "") + server.slowest.what + took)
    if server.pending:
        about.append(f"{len(server.pending)} without a response: {server.pending[0].what}")
    return f"{server.at} {duration(server.waited_ns / 1000)} ({', '.join(about)})"


def _most(names: Iterator[str]) -> str:
    counts = Counter(names)
    texts = [f"{name} ({n})" if n > 1 else name for name, n in counts.most_common(TOP)]
    more = len(counts) - TOP
    return ", ".join(texts) + (f" and {more} more" if more > 0 else "")


def write_json(found: Explanation, _everything: bool) -> None:
    """Print a JSON object per connection, and what else was found.

    That is one per destination that takes nearly all ports, and one per process with its servers.
    """
    for shortage in found.exhausted:
        print(json.dumps({"rule": "local-ports", **asdict(shortage)}))
    for servers in found.servers:
        told = [_server_fields(server) for server in servers]
        print(json.dumps({"process": servers[0].process, "servers": told}))
    for one in found:
        rounded = [replace(verdict, share=round(verdict.share, 4)) for verdict in one.verdicts]
        fields = asdict(replace(one, verdicts=tuple(rounded)))
        print(json.dumps({name: fields[name] for name in fields if name not in _TEXT_ONLY}))


def _server_fields(server: Server) -> dict[str, Any]:
    return {
        "server": server.at,
        "requests": server.count,
        "took_ns": server.took_ns,
        "slowest": server.slowest and server.slowest.what,
        "slowest_ns": server.slowest and server.slowest.took_ns,
        "pending": [one.what for one in server.pending],
    }


_TEXT_ONLY = ("owner", "local", "remote")
