"""What of `tcprism serve` inserts into a fleet's tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from tcprism.cli.clickhouse import reached
from tcprism.cli.options import parse_size
from tcprism.cli.serving import private_folder
from tcprism.errors import OutputError, UsageError
from tcprism.fleet.outbox import Outbox, Spool
from tcprism.fleet.server import Server
from tcprism.fleet.sink import ClickHouse
from tcprism.sinks import Sink
from tcprism.sources.least_privilege import User

_LEAST = 1 << 20  # bytes on disk


@dataclass(frozen=True, slots=True)
class Fleet:
    """The sink, and what it needs when privileges are given up."""

    sink: Sink
    port: int
    writable: Sequence[Path]
    readable: Sequence[Path]


def spool_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options for what waits while ClickHouse is away."""
    command = click.option(
        "--spool-size",
        default="1G",
        show_default=True,
        metavar="BYTES",
        help="Size of what waits there; the oldest is dropped, and counted.",
    )(command)
    return click.option(
        "--spool",
        metavar="DIR",
        help="Where rows wait while ClickHouse is away; by default 64 MB wait in memory.",
    )(command)


def fleet_of(given: dict[str, Any], user: User | None) -> Fleet | None:
    """Return what inserts, if ClickHouse is named. Raises UsageError, OutputError, ExtraMissing."""
    url, path = given.pop("clickhouse"), given.pop("credentials")
    text, size = given.pop("spool"), parse_size(given.pop("spool_size"), "spool-size") or 0
    if url is None:
        if text or path:
            option = "spool" if text else "credentials"
            raise UsageError(f"--{option} is for --clickhouse URL: give that too")
        return None
    if size < _LEAST:
        raise UsageError("--spool-size is too little for an insert: give 1M or more")
    address, who = reached(url, path)
    spool, writable = None, []
    if text:
        writable = [private_folder("spool", text, user)]
        try:
            spool = Spool(writable[0], size)
        except OSError as error:
            raise OutputError(f"--spool: cannot read {text}: {error.strerror}") from error
    sink = ClickHouse(Server(address, who), Outbox(spool))
    return Fleet(sink, address.port, writable, who.files)
