"""`tcprism trace`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import click
from click.core import ParameterSource

from tcprism.cli import options
from tcprism.cli.capture_options import capture_option, parse_capture_filter, require_segments
from tcprism.cli.command import Command
from tcprism.cli.output import naming, opened, packets_of, print_ledger
from tcprism.cli.presets import TRACE, Preset
from tcprism.cli.session import Limits, Stop, run, started
from tcprism.cli.tls_options import tls_options, with_tls, without_encrypted
from tcprism.cli.trace_options import (
    OR_SEGMENT,
    header_option,
    parse_tracing,
    payload_option,
    payloads,
    tracing_options,
)
from tcprism.errors import UsageError
from tcprism.events.kinds import SEGMENT_KINDS
from tcprism.features import machine
from tcprism.filters import Criteria
from tcprism.pipeline import account
from tcprism.sinks.queued import Queued
from tcprism.sources.host_pids import host_pids
from tcprism.sources.request import (
    CAPTURE_KINDS,
    DEFAULT_KINDS,
    DEFAULT_PAYLOAD,
    Request,
)
from tcprism.sources.tracing import Tracing
from tcprism.stages import Stage

EPILOG = """\b
Examples:
  tcprism trace --port 443                         HTTPS of every process
  tcprism trace --pid 1234 --follow --payload 2000 a server and its workers, with payload
  tcprism trace --kinds all --host 10.0.0.0/8      also segments, for one network
  tcprism trace --format json --output tcp.json    one JSON object per line (docs/events.md)
  tcprism trace --format pcapng | wireshark -k -i -
  tcprism trace --payload 200 -- curl http://host/ one command, from its first byte
  tcprism trace --tls --port 443                   what is inside TLS (docs/tls.md)
  tcprism trace --capture-filter 'tcp[tcpflags] & tcp-rst != 0'
                                                   segments, chosen as tcpdump chooses
  tcprism trace --count-only                       rates per second, at the lowest cost

An event must match every filter option given, and any one of the values of each. All filters but
--capture-filter run in the kernel. Ctrl-C stops and reports any loss; -v prints the full ledger
(docs/ledger.md)."""


@click.command(epilog=EPILOG, context_settings={"ignore_unknown_options": False})
@options.filter_options
@options.kinds_option(",".join(DEFAULT_KINDS))
@payload_option(DEFAULT_PAYLOAD, of=OR_SEGMENT)
@header_option
@capture_option
@options.view_options
@tls_options
@options.count_option
@options.duration_option
@tracing_options
@options.command_argument
def command(**given: Any) -> None:
    """Show sends and receives with their bytes, losses, and how connections begin and end."""
    arguments: tuple[str, ...] = given.pop("command")
    request_options = _check(given)
    captured = parse_capture_filter(given)
    stages = (
        *without_encrypted(given, request_options["kinds"]),
        *options.parse_stages(given),
        *naming(given["form"]),
    )
    with started(arguments, given["verbose"]) as child:
        chosen = options.to_filter(given, child.pid if child else None)
        preset = replace(TRACE, stages=lambda: (*TRACE.stages(), *captured))
        status = trace(_request(request_options, chosen), given, child, preset, stages)
    sys.exit(status)


def _check(given: dict[str, Any]) -> dict[str, Any]:
    """Parse what needs no kernel, before anything is started."""
    kinds = with_tls(given, _kinds(given))
    options.parse_duration(given["duration"])
    return {
        "kinds": kinds,
        "tls_records": given["layers"] == "all",
        **_payload(given, kinds),
        "options": _wants_options(given, kinds),
        **parse_tracing(given),
        "ordered": not given["count_only"],
    }


def _kinds(given: dict[str, Any]) -> tuple[str, ...]:
    """Return the chosen kinds; a capture has segments of both directions if nobody says more."""
    kinds = options.parse_kinds(given.pop("kinds"))
    captures = given["capture_filter"] is not None
    if captures and given["tls"]:
        raise UsageError("--capture-filter chooses segments: leave --tls out")
    source = click.get_current_context().get_parameter_source("kinds")
    if source is not ParameterSource.DEFAULT:
        if captures:
            require_segments(kinds)
        return kinds
    written = given["form"] == "pcapng" and given["packets"] is None and not given["tls"]
    if written or given["packets"] == "segments":
        return CAPTURE_KINDS
    return SEGMENT_KINDS if captures else kinds


def _wants_options(given: dict[str, Any], kinds: Sequence[str]) -> bool:
    """Tell whether segments need the options of their TCP header: captures look at them."""
    captures = given["capture_filter"] is not None
    return given.pop("options") or captures or _writes_segments(given, kinds)


def _writes_segments(given: dict[str, Any], kinds: Sequence[str]) -> bool:
    """Tell whether segments become the packets of a file."""
    return given["form"] == "pcapng" and packets_of(given["packets"], kinds) == "segments"


def _payload(given: dict[str, Any], kinds: Sequence[str]) -> dict[str, int]:
    """Return the payload bytes of messages and of segments; what is only counted carries none."""
    chosen = payloads(given, kinds)
    if given["count_only"]:
        return dict.fromkeys(chosen, 0)
    if _writes_segments(given, kinds):
        chosen["segment_payload"] = chosen["payload"]
    return chosen


def _request(parsed: dict[str, Any], chosen: Criteria) -> Request:
    return Request(filter=chosen, **parsed)


def trace(
    request: Request,
    given: dict[str, Any],
    child: Command | None,
    preset: Preset,
    stages: Sequence[Stage] = (),
) -> int:
    """Trace as a command's options say, with a preset at the events; return its exit status."""
    stages = (*stages, *preset.stages())
    with Tracing(request) as tracing, opened(options.parse_output(given["output"])) as output:
        made = preset.make(given, request.kinds, output)
        sinks = [Queued(sink) if sink.slow else sink for sink in made]
        limits = Limits(given["count"], given["duration"])
        try:
            with Stop(limits, output, child) as stop:
                announce(tracing, given)  # from here on a signal stops in good order
                run(tracing, stages, sinks, output, stop, child)
        finally:
            print_ledger(account(tracing, stages, sinks), given)
    return child.end() if child else 0


def say_whose_pids(pids: Sequence[int]) -> None:
    """Say on stderr, in a pid namespace, that events have other pids than it, and which."""
    if not machine.proc_is_of_host():
        known = host_pids(pids)
        those = "".join(f"; {here} here is {host}" for here, host in known.items())
        print(f"pids are shown as the host has them{those}", file=sys.stderr, flush=True)


def announce(tracing: Tracing, given: dict[str, Any]) -> None:
    """Say on stderr that the hooks are on; with -v which, with -vv why no better; not with -q."""
    if given["quiet"]:
        return
    verbose = given["verbose"]
    kinds = ", ".join(tracing.request.kinds)
    say_whose_pids(tracing.request.filter.pids)
    print(f"tracing {kinds}; Ctrl-C stops", file=sys.stderr, flush=True)
    for line in tracing.libraries.lines if tracing.libraries else ():
        print(line, file=sys.stderr, flush=True)
    for choice in tracing.choices if verbose else ():
        hook = choice.hook.name if choice.hook else "nothing"
        print(f"  {choice.probe.family}: {hook}", file=sys.stderr)
        for refusal in choice.refusals:
            print(f"    not {refusal.hook.mechanism}: {refusal.reason}", file=sys.stderr)
            for line in refusal.log if verbose > 1 else ():
                print(f"      {line}", file=sys.stderr)
