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
  tcprism retransmits --format json --output r.json

Totals by cause, peer and owner go to standard error at the end. docs/retransmits.md explains the
causes."""


@click.command(epilog=EPILOG)
@options.filter_options
@click.option("--probes", is_flag=True, help="Include zero-window probes.")
@view_options
def command(**given: Any) -> None:
    """Show each retransmitted segment, why, and whose bytes it carries; and local drops."""
    show(given, RETRANSMITS, ("probe",) if given.pop("probes") else ())
