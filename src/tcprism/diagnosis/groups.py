"""Groups: connections added up by process, remote host, port or container."""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tcprism.diagnosis.connections import Places, owners, receive_queue, round_trip, send_queue
from tcprism.diagnosis.delta import LISTEN, Numbers
from tcprism.diagnosis.table import Table
from tcprism.events import Part
from tcprism.events.scopes import shown

Labels = list[str]
Listening = Set[tuple[int, int]]  # network namespaces and ports


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """One row a group: its label, how many connections, and their sums."""

    labels: list[str]
    members: NDArray[np.int64]
    rate_out: Numbers
    rate_in: Numbers
    retransmit_share: Numbers
    send_queue: Numbers
    receive_queue: Numbers
    rtt: Numbers

    def __len__(self) -> int:
        return len(self.labels)


def listening(table: Table) -> Listening:
    """Return where somebody listens."""
    rows = table.rows[table.rows["state"] == LISTEN]
    return set(zip(rows["netns"].tolist(), rows["local_port"].tolist(), strict=True))


def _texts(name: str) -> Callable[[Part, Listening], Labels]:
    return lambda part, _: [str(value or "-") for value in shown(part, name)]


def _service_ports(part: Part, listening: Listening) -> Labels:
    """Return the server's port: the listener's, or else the lower one, rarely the ephemeral one."""
    ends = (part.rows[name].tolist() for name in ("netns", "local_port", "remote_port"))
    return [
        str(next((p for p in (local, remote) if (netns, p) in listening), min(local, remote)))
        for netns, local, remote in zip(*ends, strict=True)
    ]


GROUPINGS: dict[str, Callable[[Part, Listening], Labels]] = {
    "process": lambda part, _: owners(part),
    "remote host": _texts("remote_ip"),
    "port": _service_ports,
    "container": _texts("container"),
}


def group(table: Table, grouping: str, chosen: Places) -> Groups:
    """Add the connections at some places of a table up, by one of GROUPINGS."""
    names = GROUPINGS[grouping](table.part.take(chosen), listening(table))
    labels, places = np.unique(np.array(names, str), return_inverse=True)

    def total(values: NDArray[np.generic]) -> Numbers:
        sums = np.zeros(len(labels))
        np.add.at(sums, places, values[chosen].astype(np.float64))
        return sums

    again, sent = (table.history[:, channel].sum(axis=1) for channel in (3, 2))
    all_sent = np.maximum(total(sent), total(again))
    rtt = np.full(len(labels), -1.0)
    np.maximum.at(rtt, places, np.nan_to_num(round_trip(table)[chosen], nan=-1))
    return Groups(
        labels=labels.tolist(),
        members=np.bincount(places, minlength=len(labels)),
        rate_out=total(table.rate_out),
        rate_in=total(table.rate_in),
        retransmit_share=np.divide(
            total(again), all_sent, out=np.zeros(len(labels)), where=all_sent > 0
        ),
        send_queue=total(send_queue(table)),
        receive_queue=total(receive_queue(table)),
        rtt=np.where(rtt < 0, np.nan, rtt),
    )
