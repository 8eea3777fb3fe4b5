"""`tcprism record`."""

from __future__ import annotations

import platform
import sys
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

import click

from tcprism import __version__
from tcprism.cli import options
from tcprism.cli.command import Command
from tcprism.cli.output import create, print_ledger
from tcprism.cli.session import Limits, Stop, run, started
from tcprism.cli.trace import announce
from tcprism.cli.trace_options import parse_tracing, payload_option, tracing_options
from tcprism.errors import UsageError
from tcprism.events import KINDS, Batch
from tcprism.events.optional import pyarrow
from tcprism.recording.files import Files, Limit
from tcprism.recording.notes import Facts
from tcprism.sources.request import Request
from tcprism.sources.snapshots import Snapshots
from tcprism.sources.tracing import Tracing

EPILOG = """\b
Examples:
  tcprism record -o run.tcpr                       everything, until Ctrl-C
  tcprism record -o run.tcpr --port 443 -- curl https://host/
  tcprism record -o run.tcpr --max-size 1G         stops by itself before the disk is full
  tcprism record -o run.tcpr --rotate 100M --keep 10
                                                   a directory with the latest 1000 MB
  ssh host sudo tcprism record -o - | tcprism replay -

Look at it with `tcprism replay`, `export` and `query`; docs/recording.md describes the format.
With all kinds it also has a snapshot of every connection each second, for `tcprism top`.
It holds payload: files are readable to their owner alone."""

PROGRESS_EVERY = 1.0  # seconds
SNAPSHOT_EVERY = 1.0  # seconds
SNAPSHOT_SHARE = 0.05  # of the time, at most


@click.command(epilog=EPILOG)
@click.option(
    "-o", "--output", required=True, metavar="FILE", help="The recording; - for standard output."
)
@options.filter_options
@options.kinds_option("all")
@payload_option(256)
@click.option("--max-size", metavar="BYTES", help="Stop when the recording is so large.")
@click.option("--rotate", metavar="BYTES", help="Go on in a new file then; FILE is a directory.")
@click.option("--keep", type=click.IntRange(1), metavar="N", help="Keep the latest N files.")
@click.option("--count", type=click.IntRange(1), metavar="N", help="Stop after N events.")
@click.option("--duration", type=float, metavar="SECONDS", help="Stop then.")
@tracing_options
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND ARGS...]")
def command(**given: Any) -> None:
    """Record events to a file, to look at them later and elsewhere."""
    pyarrow()  # what is missing is said before anything is started
    arguments: tuple[str, ...] = given.pop("command")
    limit = _limit(given)
    texts = options.filter_texts(dict(given))
    request = _request(given)
    with started(arguments, given["verbose"]) as child:
        chosen = options.to_filter(given, child.pid if child else None)
        status = _record(Request(filter=chosen, **request), given, texts, limit, child)
    sys.exit(status)


def _limit(given: dict[str, Any]) -> Limit:
    """Check the sizes."""
    sizes = {name: options.parse_size(given.pop(name), name) for name in ("max_size", "rotate")}
    keep = given.pop("keep")
    if keep and not sizes["rotate"]:
        raise UsageError("--keep needs --rotate: it says how many of the files stay")
    if sizes["rotate"] and given["output"] == "-":
        raise UsageError("--rotate needs a place for its files: give --output a name")
    return Limit(keep=keep, **sizes)


def _request(given: dict[str, Any]) -> dict[str, Any]:
    options.parse_duration(given["duration"])
    return {
        "kinds": options.parse_kinds(given.pop("kinds")),
        "payload": options.parse_payload(given.pop("payload")),
        **parse_tracing(given),
    }


def _record(
    request: Request,
    given: dict[str, Any],
    texts: dict[str, tuple[str, ...]],
    limit: Limit,
    child: Command | None,
) -> int:
    with Tracing(request) as monitor, ExitStack() as stack:
        snapshots = None
        if request.kinds == KINDS:
            snapshots = stack.enter_context(Snapshots(request.filter))
        output = options.parse_output(given["output"])
        files = Files(output, facts(monitor, texts), limit, create, sys.stdout.buffer)
        try:
            with Stop(Limits(given["count"], given["duration"]), files, child) as stop:
                announce(monitor, given)
                run(monitor, Recorder(files, monitor, stop, snapshots), files, stop, child)
        finally:
            print_ledger(monitor.ledger(), given)
    return child.end() if child else 0


def facts(monitor: Tracing, texts: dict[str, tuple[str, ...]]) -> Facts:
    """Return what is true of this machine and this run."""
    hooks = {choice.probe.family: choice.hook.name for choice in monitor.choices if choice.hook}
    return Facts(
        kinds=monitor.request.kinds,
        payload=monitor.request.payload,
        filters=texts,
        hooks=hooks,
        host=platform.node(),
        kernel=platform.release(),
        architecture=platform.machine(),
        started=datetime.now(UTC).isoformat(),
        tcprism=__version__,
    )


class Recorder:
    """The sink: writes batches and snapshots, keeps the account, shows how it goes."""

    def __init__(
        self, files: Files, monitor: Tracing, stop: Stop, snapshots: Snapshots | None = None
    ) -> None:
        self._files = files
        self._snapshots = snapshots
        self._next_snapshot = 0.0
        self._monitor = monitor
        self._stop = stop
        self._progress = Progress() if sys.stderr.isatty() else None
        self._looked = time.monotonic()

    def write(self, batch: Batch) -> None:
        """Take a batch, and once a second the account."""
        if time.monotonic() - self._looked >= PROGRESS_EVERY:
            self._looked = time.monotonic()
            self._files.note(self._monitor.ledger())
            if self._progress:
                self._progress.show(self._files, self._monitor.ledger().lost)
        self._files.write(batch)
        self._take_snapshot()
        if self._files.full:
            self._stop.reached = True

    def _take_snapshot(self) -> None:
        """Once a second, or less often where there are so many sockets that it would cost much."""
        now, before = time.monotonic(), time.process_time()
        if self._snapshots is None or now < self._next_snapshot:
            return
        self._files.write(self._snapshots.take())
        spent = time.process_time() - before
        self._next_snapshot = now + max(SNAPSHOT_EVERY, spent / SNAPSHOT_SHARE)

    def close(self) -> None:
        """Write what is left with the final account."""
        if self._progress:
            self._progress.end()
        self._files.note(self._monitor.ledger())
        self._files.close()


class Progress:
    """A line on stderr that is written over again and again."""

    def __init__(self) -> None:
        self._events = 0
        self._at = time.monotonic()

    def show(self, files: Files, lost: int) -> None:
        """Show events, bytes, rate and losses."""
        now = time.monotonic()
        rate = (files.events - self._events) / (now - self._at)
        self._events, self._at = files.events, now
        text = f"{files.events:,} events, {files.size:,} bytes, {rate:,.0f} events/s, {lost:,} lost"
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Take the line away."""
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
