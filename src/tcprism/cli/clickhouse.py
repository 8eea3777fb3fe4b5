"""The options that say which ClickHouse, and who asks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from tcprism.fleet.address import Address, Credentials
from tcprism.fleet.address import credentials as read_credentials

credentials_option = click.option(
    "--credentials",
    metavar="FILE",
    help="User, password and certificates for ClickHouse, in a TOML file; by default the variables"
    " CLICKHOUSE_USER and CLICKHOUSE_PASSWORD.",
)


def clickhouse_option(
    help: str = "The ClickHouse of a fleet: http://HOST:8123/DATABASE or https.",
    required: bool = False,
) -> Callable[..., Any]:
    """Return the option that names a ClickHouse."""
    return click.option("--clickhouse", metavar="URL", required=required, help=help)


def reached(text: str, path: str | None) -> tuple[Address, Credentials]:
    """Return where a ClickHouse is and who asks. Raises UsageError."""
    address = Address(text)
    return address, read_credentials(address, path)
