"""`tcprism record`."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from typing import Any

import click

from tcprism.cli import options
from tcprism.cli.command import Command
from tcprism.cli.output import encrypting, print_ledger
from tcprism.cli.session import Limits, Stop, run, started
from tcprism.cli.tls_options import tls_option, with_tls
from tcprism.cli.trace import announce
from tcprism.cli.trace_options import (
    OR_SEGMENT,
    header_option,
    parse_tracing,
    payload_option,
    payloads,
    tracing_options,
)
from tcprism.errors import UsageError
from tcprism.events import KINDS, Batch
from tcprism.events.kinds import NAMED_KINDS
from tcprism.events.ledger import Ledger
from tcprism.events.optional import pyarrow
from tcprism.pipeline import account
from tcprism.recording.files import Create, Files, Limit
from tcprism.sinks import Sink
from tcprism.sources import Source
from tcprism.sources.request import Request
from tcprism.sources.snapshots import Snapshots
from tcprism.sources.together import Together
from tcprism.sources.tracing import Tracing

EPILOG = """\b
Examples:
  tcprism record -o run.tcpr                       everything, until Ctrl-C
  tcprism record -o run.tcpr --port 443 -- curl https://host/
  tcprism record -o run.tcpr --tls                 also what is inside TLS
  tcprism record -o run.tcpr --max-size 1G         stops at that size
  tcprism record -o run.tcpr --rotate 100M --keep 10
                                                   a directory with the latest 1000 MB
  ssh host sudo tcprism record -o - | tcprism replay -

Read it with `tcprism replay`, `export` and `query`; docs/recording.md describes the format.
With all kinds it also holds a snapshot of every connection each second, for `tcprism top`.
It holds payload, so only the owner of the file can read it."""


@click.command(epilog=EPILOG)
@click.option(
    "-o", "--output", required=True, metavar="FILE", help="File to write; - for standard output."
)
@options.filter_options
@options.kinds_option("all")
@payload_option(256, of=OR_SEGMENT)
@header_option
@click.option("--max-size", metavar="BYTES", help="Stop when the recording reaches this size.")
@click.option(
    "--rotate", metavar="BYTES", help="Start a new file at this size; FILE is a directory."
)
@click.option("--keep", type=click.IntRange(1), metavar="N", help="Keep only the latest N files.")
@options.encrypt_option
@tls_option
@options.count_option
@options.duration_option
@tracing_options
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND ARGS...]")
def command(**given: Any) -> None:
    """Record events to a file, to read later or on another machine."""
    pyarrow()  # what is missing is said before anything is started
    arguments: tuple[str, ...] = given.pop("command")
    limit = _limit(given)
    make = _encrypting(given)
    texts = options.filter_texts(dict(given))
    request = _request(given)
    with started(arguments, given["verbose"]) as child:
        chosen = options.to_filter(given, child.pid if child else None)
        status = _record(Request(filter=chosen, **request), given, texts, limit, make, child)
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


def _encrypting(given: dict[str, Any]) -> Create:
    """Return what makes files."""
    keys = given.pop("encrypt_to")
    if keys and given["output"] == "-":
        raise UsageError("--encrypt-to needs a place for its file: give --output a name")
    return encrypting(keys)


def _request(given: dict[str, Any]) -> dict[str, Any]:
    options.parse_duration(given["duration"])
    kinds = with_tls(given, options.parse_kinds(given.pop("kinds")))
    return {
        "kinds": kinds,
        **payloads(given, kinds),
        "options": given.pop("options"),
        **parse_tracing(given),
    }


def _record(
    request: Request,
    given: dict[str, Any],
    texts: dict[str, tuple[str, ...]],
    limit: Limit,
    make: Create,
    child: Command | None,
) -> int:
    with ExitStack() as stack:
        tracing = stack.enter_context(Tracing(request))
        source: Source = tracing
        if {*KINDS} - {*NAMED_KINDS} <= {*request.kinds}:
            source = Together(tracing, stack.enter_context(Snapshots(request.filter)))
        path = options.parse_output(given["output"])
        pipe = None if path else sys.stdout.buffer
        stop = stack.enter_context(Stop(Limits(given["count"], given["duration"]), pipe, child))
        files = Files(path, texts, limit, make, sys.stdout.buffer, stop.enough)
        sinks: list[Sink] = [files]
        if sys.stderr.isatty():
            sinks.append(Progress(files))
        try:
            announce(tracing, given)
            run(source, (), sinks, sys.stdout.buffer, stop, child)
        finally:
            print_ledger(account(source, (), sinks), given)
    return child.end() if child else 0


class Progress(Sink):
    """A line on stderr, written over once a second: how recording goes."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._events = 0
        self._at = time.monotonic()

    def write(self, batch: Batch) -> None:
        """Nothing: the files know how much they have."""

    def account(self, ledger: Ledger) -> None:
        """Show events, bytes, rate and losses."""
        now = time.monotonic()
        events, size = self._files.events, self._files.size
        rate = (events - self._events) / (now - self._at)
        self._events, self._at = events, now
        text = f"{events:,} events, {size:,} bytes, {rate:,.0f} events/s, {ledger.lost:,} lost"
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Take the line away."""
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
