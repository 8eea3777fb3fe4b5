"""`tcprism connections`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click
import numpy as np

from tcprism.cli import options
from tcprism.cli.presets import CONNECTIONS, ESTABLISHED, ended
from tcprism.cli.views import show, view_options
from tcprism.events import Batch, Part
from tcprism.events._wire import EventKind
from tcprism.events.columns import BY_NAME
from tcprism.events.connection import NAMED_BY
from tcprism.events.names import STATES, process
from tcprism.events.part import Rows
from tcprism.filters import Criteria
from tcprism.sources.snapshots import Snapshots
from tcprism.stages import StatefulStage

LISTEN = STATES.index("LISTEN")

EPILOG = """\b
Examples:
  tcprism connections                              every connection of this machine, as it ends
  tcprism connections --remote-port 443 --count 20 the next twenty to HTTPS servers
  tcprism connections --pid 1234 --follow          a server and its workers
  tcprism connections --format json --output c.json
  tcprism connections -- curl http://host/         one command
  tcprism connections --live --duration 1          also those still open, with state and age

docs/connections.md explains the columns. The kernel keeps the totals, so they are complete even for
connections that began before tcprism did. --format json shows all of them."""


@click.command(epilog=EPILOG)
@options.filter_options
@view_options
@click.option(
    "--live", is_flag=True, help="At the end, list open connections and the processes holding them."
)
def command(**given: Any) -> None:
    """Show one line per connection as it ends: duration, traffic and outcome."""
    if given.pop("live"):
        show(given, replace(CONNECTIONS, stages=lambda: ()), ("accept",), Begun)
    show(given, CONNECTIONS)


class Begun(StatefulStage):
    """Chooses the ends of connections, and when it is closed those open that pass a filter.

    It remembers when those were established, where that was seen.
    """

    def __init__(self, chosen: Criteria) -> None:
        self._chosen = chosen
        self._since: dict[bytes, int] = {}

    def __call__(self, batch: Batch) -> Batch:
        """Take the beginnings out of a batch; return the ends."""
        for part in batch.parts:
            if part.family == "connection":
                self._note(part.rows[np.argsort(part.rows["ts_ns"], kind="stable")])
        return ended(batch)

    def _note(self, rows: Rows) -> None:
        begins = (rows["kind"] == EventKind.ACCEPT) | (
            (rows["kind"] == EventKind.CONNECT) & (rows["new_state"] == ESTABLISHED)
        )
        moments = rows["ts_ns"].tolist()
        for name, begun, moment in zip(_names(rows), begins.tolist(), moments, strict=True):
            if begun:
                self._since[name] = moment
            else:
                self._since.pop(name, None)

    def close(self) -> Batch:
        """Return the connections that are open now, one record each."""
        with Snapshots(self._chosen) as snapshots:
            batch = snapshots.take()
        return Batch([self.aged(held(part)) for part in batch.parts], batch.clock_offset_ns)

    def aged(self, part: Part) -> Part:
        """Return the same records with `age_ns`, where the beginning was seen."""
        since = [self._since.get(name, -1) for name in _names(part.rows)]
        ages = part.rows["ts_ns"].astype(np.int64) - np.array(since, np.int64)
        return part.derive(age_ns=np.ma.MaskedArray(ages, np.equal(since, -1)))


def _names(rows: Rows) -> list[bytes]:
    """Return what tells a connection from all others that are open: its namespace and ends."""
    fields = [rows[name].tobytes() for name in NAMED_BY]
    sizes = [rows.dtype[name].itemsize for name in NAMED_BY]
    return [
        b"".join(text[place * size :][:size] for text, size in zip(fields, sizes, strict=True))
        for place in range(len(rows))
    ]


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
