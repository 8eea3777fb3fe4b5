"""Groups: connections added up by process, remote host, port or container."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tcprism.diagnosis.connections import owners, receive_queue, send_queue
from tcprism.diagnosis.delta import LISTEN, Numbers, microseconds
from tcprism.diagnosis.table import Table
from tcprism.events.columns import BY_NAME

Labels = list[str]


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


def _texts(name: str) -> Callable[[Table], Labels]:
    return lambda table: [str(value or "-") for value in BY_NAME[name].to_list(table.part)]


def _service_ports(table: Table) -> Labels:
    """Return the port that the connection goes to: the lower one, which is rarely ephemeral."""
    rows = table.rows
    ports = np.minimum(rows["local_port"], rows["remote_port"])
    return list(map(str, np.where(rows["state"] == LISTEN, rows["local_port"], ports).tolist()))


GROUPINGS: dict[str, Callable[[Table], Labels]] = {
    "process": lambda table: owners(table.part),
    "remote host": _texts("remote_ip"),
    "port": _service_ports,
    "container": _texts("container"),
}


def group(table: Table, grouping: str) -> Groups:
    """Add the connections of a table up, by one of GROUPINGS."""
    labels, places = np.unique(np.array(GROUPINGS[grouping](table), str), return_inverse=True)

    def total(values: NDArray[np.generic]) -> Numbers:
        sums = np.zeros(len(labels))
        np.add.at(sums, places, values.astype(np.float64))
        return sums

    again, sent = (table.history[:, channel].sum(axis=1) for channel in (3, 2))
    all_sent = np.maximum(total(sent), total(again))
    rtt = np.full(len(labels), -1.0)
    np.maximum.at(rtt, places, np.nan_to_num(microseconds(table.rows, "srtt_us"), nan=-1))
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
