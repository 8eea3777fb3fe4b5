"""`tcprism requests`."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, BinaryIO

import click

from tcprism.cli import options
from tcprism.cli.clickhouse import clickhouse_option, credentials_option
from tcprism.cli.fleet_requests import show
from tcprism.cli.output import make_sink, wants_color
from tcprism.cli.presets import REQUESTS, request_sinks
from tcprism.cli.session import started
from tcprism.cli.tls_options import tls_option, with_tls
from tcprism.cli.trace import trace
from tcprism.cli.trace_options import parse_tracing, payload_option, tracing_options
from tcprism.errors import UsageError
from tcprism.events.requests import ARRIVING, NEEDS, PAYLOAD
from tcprism.protocols.known import protocols
from tcprism.sinks import Sink
from tcprism.sinks.request_summary import BY, RequestSummary
from tcprism.sources.request import Request
from tcprism.stages.request_filter import RequestFilter
from tcprism.stages.requests import Requests

_UNITS_NS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
_STATUS = re.compile(r"[0-9A-Za-z_-]{1,32}")

EPILOG = """\b
Examples:
  tcprism requests --port 8080                     each request of that port as its response ends
  tcprism requests --slower 100ms                  only slow ones
  tcprism requests --status 5xx,error              only failed ones
  tcprism requests --summary --duration 60         per route: count, errors, rate, percentiles
  tcprism requests --tls --port 443                requests inside TLS
  tcprism requests --tls=handshakes                its handshakes; no plaintext is read
  tcprism requests --protocol redis --by server
  tcprism requests --arrivals --port 443           exactly when responses came, at some cost
  tcprism requests --pending --duration 5          also those without a response after 5 seconds
  tcprism requests --where "method = 'POST' and response_bytes > 1e6"
  tcprism requests --format json -- curl http://host/
  tcprism requests --clickhouse http://127.0.0.1:8123 --slower 100ms
                                                   slow ones of all hosts of a fleet

The protocol is told by the bytes, never by the port. Values (query strings, literals, arguments)
are shown as ? unless --show-values is given. docs/requests.md explains the columns and the split
of the time; a summary goes to standard error at the end."""

_HANDSHAKES = "--tls=handshakes"


class _Command(click.Command):
    """Takes --tls=handshakes, which reads no plaintext, for --protocol tls.

    An option that may have a value or none would take the next word for it.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put one for the other, before the command to trace."""
        own = args.index("--") if "--" in args else len(args)
        meant = [[each] if each != _HANDSHAKES else ["--protocol", "tls"] for each in args[:own]]
        return super().parse_args(ctx, [*chain.from_iterable(meant), *args[own:]])


@click.command(cls=_Command, epilog=EPILOG)
@options.filter_options
@click.option("--protocol", metavar="NAME,...", help="Only these protocols; by default all.")
@click.option("--slower", metavar="TIME", help="Only those that took at least TIME: 100ms, 1s.")
@click.option(
    "--status",
    metavar="STATUS,...",
    help="Only these statuses: 404, 5xx, or error for all that failed.",
)
@click.option(
    "--where", metavar="EXPR", help="Only requests for which an SQL expression of columns holds."
)
@click.option("--pending", is_flag=True, help="At the end, also show requests without a response.")
@click.option(
    "--arrivals",
    is_flag=True,
    help="Trace segments that arrive: they tell exactly when a response came.",
)
@click.option("--summary", is_flag=True, help="Show only the summary.")
@click.option(
    "--by",
    type=click.Choice([*BY]),
    default="route",
    show_default=True,
    help="What to sum up by.",
)
@click.option("--show-values", is_flag=True, help="Show values, which may be secrets.")
@tls_option
@payload_option(PAYLOAD)
@click.option(
    "--format",
    "form",
    default="text",
    show_default=True,
    metavar="FORMAT",
    help="text, json, csv, arrow, parquet, or an installed format.",
)
@clickhouse_option(
    "Show the requests of all hosts of a fleet, of the last minute and as they come."
)
@credentials_option
@options.output_option
@options.count_option
@options.duration_option
@options.color_option
@tracing_options
@options.command_argument
def command(**given: Any) -> None:
    """Show each request as its response ends: how long it took, and where the time went."""
    stages = _stages(given)
    if given["clickhouse"]:
        options.parse_duration(given["duration"])
        show(given, stages[1:])
        return
    preset = replace(REQUESTS, stages=lambda: stages, make=_sinks)
    options.parse_duration(given["duration"])
    tracing = {"payload": options.parse_payload(given.pop("payload")), **parse_tracing(given)}
    kinds = with_tls(given, (*NEEDS, ARRIVING) if given.pop("arrivals") else NEEDS)
    given |= {"count_only": False, "packets": None, "payload_style": "none"}
    with started(given["command"], given["verbose"]) as child:
        chosen = options.to_filter(given, child.pid if child else None)
        request = Request(kinds=kinds, filter=chosen, skip_bodies=True, **tracing)
        status = trace(request, given, child, preset)
    sys.exit(status)


def _stages(given: dict[str, Any]) -> tuple[Requests, RequestFilter]:
    names = given.pop("protocol")
    chosen = protocols(None if names is None else [name.strip() for name in names.split(",")])
    where = given.pop("where")
    if where is not None:
        from tcprism.recording.where import Where  # not before: it needs DuckDB

        where = Where(where, "request")
    return (
        Requests(chosen, show_values=given.pop("show_values"), alone=True),
        RequestFilter(
            _parse_time(given.pop("slower")),
            _parse_statuses(given.pop("status")),
            where,
            given.pop("pending"),
        ),
    )


def _parse_time(text: str | None) -> int:
    """Parse "100ms", "1.5s"; return nanoseconds, 0 for None. Raises UsageError."""
    if text is None:
        return 0
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ns|us|ms|s)", text.strip(), re.ASCII)
    if not match:
        raise UsageError(f"--slower: {text!r} is not a time; write for example --slower 100ms")
    return int(float(match[1]) * _UNITS_NS[match[2]])


def _parse_statuses(text: str | None) -> tuple[str, ...]:
    """Parse "5xx,error". Raises UsageError."""
    if text is None:
        return ()
    statuses = tuple(part.strip() for part in text.split(","))
    for status in statuses:
        if not _STATUS.fullmatch(status):
            raise UsageError(
                f"--status: {status!r} is not a status; write for example --status 404,5xx,error"
            )
    return statuses


def _sinks(given: dict[str, Any], _kinds: Sequence[str], output: BinaryIO) -> list[Sink]:
    if given["summary"]:
        return [RequestSummary(lambda line: output.write(f"{line}\n".encode()), given["by"])]
    if given["form"] != "text":
        return [make_sink(given, ("request",), output)]
    return request_sinks(output, wants_color(given["color"], output), given["by"])
