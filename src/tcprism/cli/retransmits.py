"""`tcprism retransmits`."""

from __future__ import annotations

from typing import Any

import click

from tcprism.cli import options
from tcprism.cli.presets import RETRANSMITS
from tcprism.cli.views import show, view_options

EPILOG = """\b
Examples:
  tcprism retransmits                              everything this machine retransmits, and why
  tcprism retransmits --comm nginx --duration 60   one program for a minute, then the totals
  tcprism retransmits --remote-host 10.0.0.0/8     to one network
  tcprism retransmits --acks --port 443            also which ACKs caused each, at some cost
  tcprism retransmits --format json --output r.json

Totals by cause, peer and owner go to standard error at the end. docs/retransmits.md explains the
causes."""


@click.command(epilog=EPILOG)
@options.filter_options
@click.option("--probes", is_flag=True, help="Include zero-window probes.")
@click.option(
    "--acks",
    is_flag=True,
    help="Name the duplicate ACKs and SACK blocks that caused each fast retransmission.",
)
@view_options
def command(**given: Any) -> None:
    """Show each retransmitted segment, why, and whose bytes it carries; and local drops."""
    acks = given.pop("acks")
    more = [*(["probe"] if given.pop("probes") else []), *(["receive"] if acks else [])]
    show(given, RETRANSMITS, tuple(more), tcp_options=acks)
