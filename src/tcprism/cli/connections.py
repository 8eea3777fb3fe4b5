"""`tcprism connections`."""

from __future__ import annotations

from typing import Any, BinaryIO

import click

from tcprism.cli import options
from tcprism.cli.trace import wants_color
from tcprism.cli.views import show, view_options
from tcprism.events import Batch
from tcprism.events._wire import EventKind
from tcprism.events.names import STATES
from tcprism.sinks import Sink
from tcprism.sinks.connections import Connections
from tcprism.sinks.json_lines import JsonLines

EPILOG = """\b
Examples:
  tcprism connections                              every connection of this machine, as it ends
  tcprism connections --remote-port 443 --count 20 the next twenty to HTTPS servers
  tcprism connections --pid 1234 --follow          those of a server and its workers
  tcprism connections --format json --output c.json
  tcprism connections -- curl http://host/         those of one command

docs/connections.md explains the columns. The totals are the kernel's own, so they are whole also
for a connection that is older than tcprism. --format json has all of them."""

ESTABLISHED = STATES.index("ESTABLISHED")


@click.command(epilog=EPILOG)
@options.filter_options
@view_options
def command(**given: Any) -> None:
    """Show one line a connection as it ends: how long, how much, how it went."""

    def make_sink(output: BinaryIO) -> Sink:
        if given["form"] == "json":
            return JsonLines(output)
        return Connections(output, color=wants_color(given["color"], output))

    show(given, make_sink, ended, kinds=("connect", "close"))


def ended(batch: Batch) -> Batch:
    """Choose the ends of connections: closes, and connects that failed."""
    parts = [
        part.take(
            (part.rows["kind"] != EventKind.CONNECT) | (part.rows["new_state"] != ESTABLISHED)
        )
        for part in batch.parts
    ]
    return Batch(parts, batch.clock_offset_ns)
