"""`tcprism connections`."""

from __future__ import annotations

from typing import Any

import click

from tcprism.cli import options
from tcprism.cli.looks import CONNECTIONS
from tcprism.cli.views import show, view_options

EPILOG = """\b
Examples:
  tcprism connections                              every connection of this machine, as it ends
  tcprism connections --remote-port 443 --count 20 the next twenty to HTTPS servers
  tcprism connections --pid 1234 --follow          those of a server and its workers
  tcprism connections --format json --output c.json
  tcprism connections -- curl http://host/         those of one command

docs/connections.md explains the columns. The totals are the kernel's own, so they are whole also
for a connection that is older than tcprism. --format json has all of them."""


@click.command(epilog=EPILOG)
@options.filter_options
@view_options
def command(**given: Any) -> None:
    """Show one line a connection as it ends: how long, how much, how it went."""
    show(given, CONNECTIONS)
