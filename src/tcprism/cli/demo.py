"""`tcprism demo`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import click

from tcprism.cli import options
from tcprism.cli.output import opened, print_ledger, wants_color
from tcprism.cli.session import Limits, Stop, run
from tcprism.cli.trace import announce
from tcprism.cli.trace_options import payload_option
from tcprism.demo.traffic import Traffic
from tcprism.events.ledger import Ledger
from tcprism.features import machine
from tcprism.filter_texts import parse_netns
from tcprism.filters import Criteria
from tcprism.pipeline import account
from tcprism.sinks.text import Text
from tcprism.sources.request import DEFAULT_KINDS, DEFAULT_PAYLOAD, Request
from tcprism.sources.tracing import Tracing

EPILOG = """\b
Examples:
  sudo tcprism demo                                 five seconds of everything
  sudo tcprism demo --kinds send,recv --payload 500 only what the processes send and receive
  sudo tcprism demo --kinds retransmit --loss 20    only retransmissions, and more of them

The network namespace has only its own loopback device and disappears when the demo ends."""


@click.command(epilog=EPILOG)
@click.option(
    "--duration",
    type=click.FloatRange(0, min_open=True),
    default=5,
    show_default=True,
    metavar="SECONDS",
    help="Stop after SECONDS.",
)
@click.option(
    "--loss",
    type=click.FloatRange(0, 100),
    default=5,
    show_default=True,
    metavar="PERCENT",
    help="Percentage of packets to drop.",
)
@options.kinds_option(",".join(("acked", "transmit", *DEFAULT_KINDS)))
@payload_option(DEFAULT_PAYLOAD)
@options.verbose_option
@options.quiet_option
def command(duration: float, loss: float, kinds: str, payload: int, **given: Any) -> None:
    """Create a small lossy network and trace the processes in it."""
    chosen, limit = options.parse_kinds(kinds), options.parse_payload(payload)
    machine.require()
    with Traffic(loss) as traffic:
        if not given["quiet"]:
            print(_introduction(traffic), file=sys.stderr)
        only_ours = Criteria(netns=(parse_netns(str(traffic.pid)),))
        _trace(Request(chosen, only_ours, limit), traffic, duration, given)


def _introduction(traffic: Traffic) -> str:
    return (
        "demo-reader fetches pages from demo-server over IPv4, demo-uploader sends it files over"
        f" IPv6,\nin a network namespace of their own. {traffic.network}."
    )


def _trace(request: Request, traffic: Traffic, duration: float, given: dict[str, Any]) -> None:
    with opened(None) as output, Tracing(request) as tracing:
        sink = Text(output, color=wants_color("auto", output))
        try:
            with Stop(Limits(duration=duration), output, None) as stop:
                announce(tracing, given)
                traffic.start()
                run(tracing, (), [sink], output, stop)
        finally:
            if not given["quiet"]:
                print("\n".join(_summary(tracing.ledger())), file=sys.stderr)
            print_ledger(account(tracing, (), [sink]), given)


def _summary(ledger: Ledger) -> Iterator[str]:
    counts = {entry.kind: entry.received for entry in ledger.entries}
    yield "seen: " + ", ".join(f"{count} {kind}" for kind, count in counts.items())
    if counts.get("retransmit"):
        yield (
            "each retransmit repeats a segment that was not acknowledged yet:"
            " it or the answer was lost, or is late"
        )
    yield "next: `tcprism trace --help`; `tcprism doctor` tells what this machine can show"
