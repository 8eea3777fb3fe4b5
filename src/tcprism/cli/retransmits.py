"""`tcprism retransmits`."""

from __future__ import annotations

import sys
from typing import Any, BinaryIO

import click

from tcprism.cli import options
from tcprism.cli.trace import wants_color
from tcprism.cli.views import show, view_options
from tcprism.events import Batch
from tcprism.sinks import Sink
from tcprism.sinks.json_lines import JsonLines
from tcprism.sinks.retransmit_summary import RetransmitSummary
from tcprism.sinks.text import Text

EPILOG = """\b
Examples:
  tcprism retransmits                              what is sent again on this machine, and why
  tcprism retransmits --comm nginx --duration 60   a minute of one program, and the sums
  tcprism retransmits --remote-host 10.0.0.0/8     towards one network
  tcprism retransmits --format json --output r.json

At the end the sums by cause, peer and owner go to standard error. docs/retransmits.md explains the
causes."""


@click.command(epilog=EPILOG)
@options.filter_options
@click.option("--probes", is_flag=True, help="Also probes of a peer's closed window.")
@view_options
def command(**given: Any) -> None:
    """Show every segment sent again, why, and whose bytes; and what this host drops."""

    def make_sink(output: BinaryIO) -> Sink:
        color = wants_color(given["color"], output)
        lines = JsonLines(output) if given["form"] == "json" else Text(output, color=color)
        return RetransmitSummary(lines, sys.stderr)

    # The sends are not shown: they tell whose bytes are sent again.
    probes = ("probe",) if given.pop("probes") else ()
    show(given, make_sink, without_sends, kinds=("send", "retransmit", "undo", "drop", *probes))


def without_sends(batch: Batch) -> Batch:
    """Choose all but the sends."""
    parts = [part for part in batch.parts if part.family != "message"]
    return Batch(parts, batch.clock_offset_ns)
