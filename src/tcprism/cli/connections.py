"""`tcprism connections`."""

from __future__ import annotations

from typing import Any

import click
import numpy as np

from tcprism.cli import options
from tcprism.cli.presets import CONNECTIONS
from tcprism.cli.views import show, view_options
from tcprism.events import Batch, Part
from tcprism.events.columns import BY_NAME
from tcprism.events.names import STATES, process
from tcprism.filters import Criteria
from tcprism.sources.snapshots import Snapshots

LISTEN = STATES.index("LISTEN")

EPILOG = """\b
Examples:
  tcprism connections                              every connection of this machine, as it ends
  tcprism connections --remote-port 443 --count 20 the next twenty to HTTPS servers
  tcprism connections --pid 1234 --follow          those of a server and its workers
  tcprism connections --format json --output c.json
  tcprism connections -- curl http://host/         those of one command
  tcprism connections --live --duration 1          those that are open, too

docs/connections.md explains the columns. The totals are the kernel's own, so they are whole also
for a connection that is older than tcprism. --format json has all of them."""


@click.command(epilog=EPILOG)
@options.filter_options
@view_options
@click.option(
    "--live", is_flag=True, help="At the end, list those still open, with all that hold them."
)
def command(**given: Any) -> None:
    """Show one line a connection as it ends: how long, how much, how it went."""
    show(given, CONNECTIONS, at_end=still_open if given.pop("live") else None)


def still_open(chosen: Criteria) -> Batch:
    """Return the connections that pass a filter and are open now, one record each."""
    with Snapshots(chosen) as snapshots:
        batch = snapshots.take()
    return Batch([held(part) for part in batch.parts], batch.clock_offset_ns)


def held(part: Part) -> Part:
    """Return of each connection's records, one a process, the first, with all as `holders`."""
    part = part.take(part.rows["state"] != LISTEN)
    _, first, place = np.unique(part.rows["inode"], return_index=True, return_inverse=True)
    texts: list[set[str]] = [set() for _ in first]
    comms, pids = (BY_NAME[name].to_list(part) for name in ("comm", "pid"))
    for index, comm, pid in zip(place.tolist(), comms, pids, strict=True):
        texts[index].add(process(comm, pid))
    holders = np.ma.MaskedArray(np.array([", ".join(sorted(t)) for t in texts], object))
    return part.take(first).derive(holders=holders)
