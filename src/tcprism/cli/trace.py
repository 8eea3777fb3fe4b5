"""`tcprism trace`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import click

from tcprism.cli import options
from tcprism.cli.command import Command
from tcprism.cli.session import Choose, Limits, Stop, everything, print_ledger, run, started
from tcprism.errors import OutputError, UsageError
from tcprism.filters import Filter
from tcprism.pipeline import DEFAULT_KINDS, DEFAULT_MAX_CONNECTIONS, Monitor, Request
from tcprism.probes import MECHANISMS
from tcprism.sinks import Sink

EPILOG = """\b
Examples:
  tcprism trace --port 443                         HTTPS of every process
  tcprism trace --pid 1234 --follow --payload 2000 a server and its workers, with payload
  tcprism trace --kinds all --host 10.0.0.0/8      segments too, of one network
  tcprism trace --format json --output tcp.json    one JSON object a line (docs/events.md)
  tcprism trace --payload 200 -- curl http://host/ one command, from its first byte
  tcprism trace --count-only                       rates a second, at the lowest cost

Values of one option are alternatives; options combine with and. All filters work in the kernel.
Ctrl-C stops and prints the ledger: what was seen, filtered, submitted and lost."""


@click.command(epilog=EPILOG, context_settings={"ignore_unknown_options": False})
@options.filter_options
@options.kinds_option(",".join(DEFAULT_KINDS))
@options.payload_option
@click.option(
    "--payload-style",
    type=click.Choice(["text", "hex", "none"]),
    default="text",
    help="How payload is shown below its line.",
)
@options.format_option
@options.output_option
@options.count_option
@options.duration_option
@click.option("--count-only", is_flag=True, help="Print rates and totals each second, no events.")
@click.option(
    "--ring-size",
    default="64M",
    show_default=True,
    metavar="BYTES",
    help="Memory of each busy ring, a power of two; larger ones survive longer bursts.",
)
@click.option(
    "--max-connections",
    type=click.IntRange(1, 1 << 24),
    default=DEFAULT_MAX_CONNECTIONS,
    show_default=True,
    metavar="N",
    help="Sockets to remember the owners of, where the kernel cannot keep them at the socket.",
)
@click.option("--hooks", type=click.Choice(MECHANISMS), help="Force one way to hook (support).")
@click.option("--include-self", is_flag=True, help="Trace tcprism's own connections too.")
@options.color_option
@options.verbose_option
@options.command_argument
def command(**given: Any) -> None:
    """Show each send and receive with its bytes, what gets lost, how connections begin and end."""
    arguments: tuple[str, ...] = given.pop("command")
    request_options = _check(given)
    with started(arguments, given["verbose"]) as child:
        chosen = options.to_filter(given, child.pid if child else None)
        request = _request(request_options, chosen)
        status = trace(request, given, child, partial(make_sink, given))
    sys.exit(status)


def _check(given: dict[str, Any]) -> dict[str, Any]:
    """Parse what needs no kernel, before anything is started."""
    kinds = options.parse_kinds(given.pop("kinds"))
    options.parse_duration(given["duration"])
    return {
        "kinds": kinds,
        "payload": _payload(given),
        "ring_size": options.parse_ring_size(given.pop("ring_size")),
        "mechanism": given.pop("hooks"),
        "include_self": given.pop("include_self"),
        "max_connections": given.pop("max_connections"),
        "ordered": not given["count_only"],
    }


def _payload(given: dict[str, Any]) -> int:
    """Check --payload; events that are only counted carry none."""
    payload = options.parse_payload(given.pop("payload"))
    return 0 if given["count_only"] else payload


def _request(parsed: dict[str, Any], chosen: Filter) -> Request:
    return Request(filter=chosen, **parsed)


def trace(
    request: Request,
    given: dict[str, Any],
    child: Command | None,
    make: Callable[[BinaryIO], Sink],
    choose: Choose = everything,
) -> int:
    """Trace as a command's options say; return its exit status.

    `make` makes the sink for the output, `choose` takes of each batch the events to write.
    """
    with opened(options.parse_output(given["output"])) as output, Monitor(request) as monitor:
        sink = make(output)
        limits = Limits(given["count"], given["duration"])
        try:
            with Stop(limits, output, child) as stop:
                announce(monitor, given["verbose"])  # from here on a signal stops in good order
                run(monitor, sink, output, stop, child, choose)
        finally:
            print_ledger(monitor)
    return child.end() if child else 0


@contextmanager
def opened(path: Path | None) -> Iterator[BinaryIO]:
    """Open the output; a file is made readable to its owner alone, for it holds payload.

    Raises OutputError.
    """
    if path is None:
        # Not sys.stdout.buffer: with PYTHONUNBUFFERED that writes what fits and forgets the rest.
        with open(sys.stdout.fileno(), "wb", closefd=False) as output:
            yield output
        return
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise OutputError(f"--output: cannot write {path}: {error.strerror}") from error
    with open(descriptor, "wb") as output:
        yield output


def make_sink(given: dict[str, Any], output: BinaryIO) -> Sink:
    """Return the sink that the options choose."""
    if given["count_only"]:
        if given["form"] == "json":
            raise UsageError("--count-only prints a table: leave --format json out")
        from tcprism.sinks.count import Count

        return Count(output)
    if given["form"] == "json":
        from tcprism.sinks.json_lines import JsonLines

        return JsonLines(output)
    from tcprism.sinks.text import Text

    return Text(output, color=wants_color(given["color"], output), style=given["payload_style"])


def wants_color(choice: str, output: BinaryIO) -> bool:
    """Follow --color, then NO_COLOR, then whether the output is a terminal."""
    if choice != "auto":
        return choice == "always"
    return not os.environ.get("NO_COLOR") and output.isatty()


def announce(monitor: Monitor, verbose: int) -> None:
    """Say on stderr that the hooks are on; with -v which, with -vv why no better."""
    kinds = ", ".join(monitor.request.kinds)
    print(f"tracing {kinds}; Ctrl-C stops", file=sys.stderr, flush=True)
    for choice in monitor.choices if verbose else ():
        hook = choice.hook.name if choice.hook else "nothing"
        print(f"  {choice.probe.family}: {hook}", file=sys.stderr)
        for refusal in choice.refusals:
            print(f"    not {refusal.hook.mechanism}: {refusal.reason}", file=sys.stderr)
            for line in refusal.log if verbose > 1 else ():
                print(f"      {line}", file=sys.stderr)
