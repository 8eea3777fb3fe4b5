"""`tcprism fleet`: a ClickHouse that many hosts write to."""

from __future__ import annotations

import click

from tcprism.cli.clickhouse import clickhouse_option, credentials_option, reached
from tcprism.fleet.setup import initialise

EPILOG = """\b
Examples:
  tcprism fleet init --clickhouse http://127.0.0.1:8123
  tcprism fleet init --clickhouse https://clickhouse.example:8443/tcprism --credentials admin.toml

Then `tcprism serve --clickhouse URL` inserts on each host, and query, requests and top with
--clickhouse URL read. docs/fleet.md describes the tables."""


@click.command(epilog=EPILOG)
@click.argument("action", type=click.Choice(["init"]), metavar="init")
@clickhouse_option(required=True)
@credentials_option
def command(action: str, clickhouse: str, credentials: str | None) -> None:
    """Make the tables for many hosts in ClickHouse, or bring older ones up to date."""
    for line in initialise(*reached(clickhouse, credentials)):
        print(line)
