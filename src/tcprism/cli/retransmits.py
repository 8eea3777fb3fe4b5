"""`tcprism retransmits`."""

from __future__ import annotations

from typing import Any

import click

from tcprism.cli import options
from tcprism.cli.presets import RETRANSMITS
from tcprism.cli.views import show, view_options

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
    show(given, RETRANSMITS, ("probe",) if given.pop("probes") else ())
