"""`tcprism top`."""

from __future__ import annotations

import importlib
import math
import re
import sys
from collections.abc import Iterable
from contextlib import closing
from typing import Any

import click

from tcprism import interrupts
from tcprism.cli import options
from tcprism.cli.clickhouse import clickhouse_option, credentials_option, reached
from tcprism.cli.output import silence
from tcprism.cli.recordings import print_trouble
from tcprism.cli.session import Limits, Stop
from tcprism.cli.tls_options import refuse_readers, refuse_recordings, tls_option
from tcprism.diagnosis.connections import COLUMNS
from tcprism.diagnosis.feeds import Feed, Live, Recorded
from tcprism.errors import MachineError, UsageError
from tcprism.events.requests import NEEDS, PAYLOAD
from tcprism.filter_texts import parse_recorded
from tcprism.recording.reader import Recording
from tcprism.recording.selection import Selection
from tcprism.tui.model import Model
from tcprism.tui.plain import Printer, json_line, table_text
from tcprism.tui.plain_requests import requests_json, requests_text

_PRINTERS: dict[str, dict[str, Printer]] = {
    "connections": {"text": table_text, "json": json_line},
    "requests": {"text": requests_text, "json": requests_json},
}
_EVENTS_PAUSE = 0.5  # seconds between two polls of the rings
_TO_END = 2.0  # seconds: the screens may be waiting for the kernel

EPILOG = """\b
Examples:
  tcprism top                            all connections; ? explains keys and columns
  tcprism top --port 443 --sort rtt      connections on a port, slowest path first
  tcprism top --plain | less             a table per second, for pipes and small terminals
  tcprism top --format json              one JSON object per second
  tcprism top --view requests --plain    requests without a response, and routes
  tcprism top --tls --port 443           requests inside TLS, too (docs/tls.md)
  tcprism top run.tcpr                   a recording, with a timeline
  tcprism top --clickhouse http://127.0.0.1:8123 --view requests
                                         all hosts of a fleet

Rates and totals come from the kernel's own counters, so watching costs the connections nothing.
Hooks are attached only while a view shows events. See docs/top.md."""


@click.command(epilog=EPILOG)
@click.argument("file", required=False, metavar="[FILE]")
@options.filter_options
@click.option(
    "--interval", default="1s", show_default=True, metavar="TIME", help="Time between snapshots."
)
@click.option(
    "--sort",
    type=click.Choice([column.name for column in COLUMNS]),
    default="out",
    show_default=True,
    help="Column to sort by.",
)
@tls_option
@clickhouse_option("Show all hosts of a fleet: every ten seconds, as they insert.")
@credentials_option
@click.option(
    "--view",
    type=click.Choice([*_PRINTERS]),
    default="connections",
    show_default=True,
    help="What to print, or the screen to begin with.",
)
@click.option("--plain", is_flag=True, help="Print a table per snapshot instead of the screens.")
@options.memory_option
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    help="Readable, or one JSON object per snapshot.",
)
def command(**given: Any) -> None:
    """Show this machine's current connections and what limits each."""
    interval = parse_interval(given["interval"])
    if given["tls"]:
        _begin_tls(given)
    recording = open_recording(given)
    with closing(open_feed(recording, given, interval)) as feed:
        model = Model(feed, given["sort"])
        if given["form"] == "json" or given["plain"] or not sys.stdout.isatty():
            _print(model, interval, given["view"], given["form"])
        else:
            _show(model, interval, given["view"])
    if recording:
        print_trouble(recording)


def _begin_tls(given: dict[str, Any]) -> None:
    """Say on stderr what will be read of whom. Raises UsageError if it cannot be, or not safely."""
    if given["file"] or given["clickhouse"]:
        refuse_recordings()
    refuse_readers(given)
    print(
        "the plaintext of TLS is read while a view shows messages or requests, of those that the"
        " filters choose; `tcprism doctor --tls` lists the processes that do TLS",
        file=sys.stderr,
        flush=True,
    )


def open_recording(given: dict[str, Any]) -> Recording | None:
    """Return the recording that is to be shown, if one is."""
    memory = options.parse_memory(given["max_memory"])
    if given["file"] is None:
        return None
    chosen = parse_recorded(options.filter_texts(given), given.pop("follow"))
    return Recording(given["file"], Selection(chosen), memory=memory)


def open_feed(recording: Recording | None, given: dict[str, Any], interval: float) -> Feed:
    """Return what is to be shown: a recording, or this machine."""
    if given["clickhouse"]:
        return _fleet(given)
    if recording is None:
        return Live(options.to_filter(given), given["tls"])
    return Recorded(recording, interval, recording.memory // 2)


def _fleet(given: dict[str, Any]) -> Feed:
    from tcprism.diagnosis.fleet_feed import Fleet
    from tcprism.fleet.server import Server

    if given["file"]:
        raise UsageError("give either a recording or --clickhouse URL")
    server = Server(*reached(given["clickhouse"], given["credentials"]))
    return Fleet(server, parse_recorded(options.filter_texts(given), given.pop("follow")))


def parse_interval(text: str) -> float:
    """Parse "1s", "500ms" or "2" into seconds. Raises UsageError."""
    match = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)(s|ms|)", text.strip(), re.ASCII)
    seconds = float(match[1]) / (1000 if match[2] == "ms" else 1) if match else 0.0
    if not 0.05 <= seconds <= 3600:
        raise UsageError(
            f"--interval: {text!r} is not a time from 50ms to 3600s; write for example 2s"
        )
    return seconds


def _show(model: Model, interval: float, view: str) -> None:
    try:
        app = importlib.import_module("tcprism.tui.app")
        terminal = importlib.import_module("tcprism.tui.terminal")
    except ModuleNotFoundError as error:
        raise MachineError(
            f"the screens need {error.name}: run `python3 -m pip install 'tcprism[tui]'`,"
            " or use --plain"
        ) from error
    with interrupts.noted(), terminal.restored():
        interrupts.check()
        interrupts.alive(_TO_END)
        app.Top(model, interval, view).run()


def _print(model: Model, interval: float, view: str, form: str) -> None:
    """Print at each look; a recording is printed as fast as it can be read."""
    output, recorded = sys.stdout.buffer, isinstance(model.feed, Recorded)
    printer, reads = _PRINTERS[view][form], view == "requests"
    if reads:
        model.requests()  # says which library is missing, before hooks are on
        model.feed.want(NEEDS, model.feed.filters, PAYLOAD)
    pauses = math.ceil(interval / _EVENTS_PAUSE) if reads else 1
    try:
        with Stop(Limits(), output, None) as stop:
            while not stop.reached:
                model.table = model.feed.table(model.table if len(model.table) else None)
                if reads:
                    model.add_events(model.feed.events())
                output.writelines(_encoded(printer(model)))
                output.flush()
                for left in range(0 if recorded else pauses, 0, -1):
                    stop.wait(interval / pauses)
                    if left > 1:  # rings are full sooner than a long interval is over
                        model.add_events(model.feed.events())
                stop.reached |= not model.feed.go_on()
    except BrokenPipeError:
        silence(output)


def _encoded(lines: Iterable[str]) -> Iterable[bytes]:
    return (line.encode() + b"\n" for line in lines)
