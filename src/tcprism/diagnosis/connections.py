"""The columns of the connection table: what each shows, how it sorts, and a sentence about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcprism.diagnosis.delta import LISTEN, microseconds
from tcprism.diagnosis.rules import LABELS, limits
from tcprism.diagnosis.table import HISTORY, Table
from tcprism.events import Part
from tcprism.events.columns import BY_NAME
from tcprism.events.names import endpoint
from tcprism.events.part import HOST
from tcprism.events.scopes import shown
from tcprism.events.units import known_duration, percent, rate_text, size, sparkline

TREND = 10  # intervals

Places = NDArray[np.intp]
Keys = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    `texts` gives the texts of the rows at some places, `keys` what all rows are sorted by; numbers
    are sorted with the largest first. `width` to `tail` say what it is cut to where a line is short
    (tcprism.tui.layout).
    """

    name: str
    title: str
    width: int
    doc: str
    texts: Callable[[Table, Places], list[str]]
    keys: Callable[[Table], Keys]
    right: bool = True
    rank: int = 0
    least: int = 0
    most: int = 0
    tail: str = ""


def owners(part: Part) -> list[str]:
    """Return each record's process, as in curl[812], or curl[812]@web1 where hosts are told."""
    names, pids = (BY_NAME[name].to_list(part) for name in ("comm", "pid"))
    found = ["-" if p is None else f"{name}[{p}]" for name, p in zip(names, pids, strict=True)]
    if (hosts := part.derived.get(HOST)) is None:
        return found
    return [f"{owner}@{host}" for owner, host in zip(found, hosts.tolist(), strict=True)]


def ends(part: Part, end: str) -> list[str]:
    """Return each record's local or remote address and port."""
    ips, ports = (shown(part, f"{end}_{name}") for name in ("ip", "port"))
    return list(map(endpoint, ips, ports))


def _owner_texts(table: Table, places: Places) -> list[str]:
    more = table.holders[places] - 1
    texts = owners(table.part.take(places))
    return [f"{text}+{n}" if n else text for text, n in zip(texts, more.tolist(), strict=True)]


def _remote_texts(table: Table, places: Places) -> list[str]:
    listening = (table.rows["state"][places] == LISTEN).tolist()
    texts = ends(table.part.take(places), "remote")
    return ["*" if listens else text for listens, text in zip(listening, texts, strict=True)]


def _state_texts(table: Table, places: Places) -> list[str]:
    texts: list[str] = BY_NAME["state"].to_list(table.part.take(places))
    return texts


def _netns_texts(table: Table, places: Places) -> list[str]:
    return list(map(str, table.rows["netns"][places].tolist()))


def _numbers(
    values: Callable[[Table], NDArray[Any]], text: Callable[[float], str]
) -> Callable[[Table, Places], list[str]]:
    return lambda table, places: list(map(text, values(table)[places].tolist()))


def _sparklines(table: Table, places: Places) -> list[str]:
    return list(map(sparkline, table.throughput[places, -TREND:].tolist()))


def _some(text: Callable[[float], str]) -> Callable[[float], str]:
    return lambda value: text(value) if value else ""


def send_queue(table: Table) -> NDArray[Any]:
    """Bytes written and not acknowledged."""
    rows = table.rows
    return _not_of_listeners(table, rows["unsent"].astype(np.int64) + rows["unacked"], 0)


def receive_queue(table: Table) -> NDArray[Any]:
    """Bytes that lie unread."""
    return _not_of_listeners(table, table.rows["unread"], 0)


def round_trip(table: Table) -> NDArray[Any]:
    """The smoothed round-trip time in microseconds, nan where it is not known."""
    return _not_of_listeners(table, microseconds(table.rows, "srtt_us"), np.nan)


def _retransmit_share(table: Table) -> NDArray[Any]:
    return _not_of_listeners(table, table.retransmit_share, 0)


def _not_of_listeners(table: Table, values: NDArray[Any], nothing: float) -> NDArray[Any]:
    """Return the values, but of listeners, which send nothing and receive nothing, none."""
    return np.where(table.rows["state"] == LISTEN, nothing, values)


def _limit_texts(table: Table, places: Places) -> list[str]:
    return [LABELS[number] for number in limits(table.change)[places].tolist()]


def _text_keys(
    texts: Callable[[Table, Places], list[str]],
) -> Callable[[Table], Keys]:
    return lambda table: np.array(texts(table, np.arange(len(table))), object)


def _local(table: Table, places: Places) -> list[str]:
    return ends(table.part.take(places), "local")


COLUMNS = (
    Column(
        "owner",
        "OWNER",
        18,
        "The process that has the socket open, with its pid; +1: one more process has it, too.",
        _owner_texts,
        _text_keys(_owner_texts),
        right=False,
        least=12,
        most=36,
        tail="[",
    ),
    Column(
        "netns",
        "NETNS",
        10,
        "The network namespace, by its inode; shown where there are several.",
        _netns_texts,
        lambda table: table.rows["netns"],
        rank=3,
    ),
    Column(
        "local",
        "LOCAL",
        21,
        "The address and port on this machine.",
        _local,
        _text_keys(_local),
        right=False,
        least=6,
        most=47,
        tail=":",
    ),
    Column(
        "remote",
        "REMOTE",
        21,
        "The peer's address and port; * for a listener, which has no peer.",
        _remote_texts,
        _text_keys(_remote_texts),
        right=False,
        least=17,
        most=47,
        tail=":",
    ),
    Column(
        "state",
        "STATE",
        11,
        "The state of the connection (RFC 9293).",
        _state_texts,
        _text_keys(_state_texts),
        right=False,
        least=9,
    ),
    Column(
        "out",
        "OUT/s",
        6,
        "New payload bytes sent per second in the last interval.",
        _numbers(lambda table: table.rate_out, rate_text),
        lambda table: table.rate_out,
        least=5,
    ),
    Column(
        "in",
        "IN/s",
        6,
        "Payload bytes received in order per second in the last interval.",
        _numbers(lambda table: table.rate_in, rate_text),
        lambda table: table.rate_in,
        least=5,
    ),
    Column(
        "trend",
        "TREND",
        TREND,
        f"The sum of both rates over the last {TREND} intervals, relative to the highest.",
        _sparklines,
        lambda table: table.throughput[:, -TREND:].sum(axis=1),
        right=False,
        rank=5,
    ),
    Column(
        "rtt",
        "RTT",
        7,
        "The smoothed round-trip time (srtt), measured on sent data.",
        _numbers(round_trip, known_duration),
        lambda table: np.nan_to_num(round_trip(table), nan=-1),
        rank=1,
    ),
    Column(
        "retransmits",
        "RETR",
        5,
        f"Share of retransmissions in the data segments sent in the last {HISTORY} intervals.",
        _numbers(lambda table: _retransmit_share(table).round(3), _some(percent)),
        _retransmit_share,
    ),
    Column(
        "send_queue",
        "SENDQ",
        7,
        "Bytes that the process wrote and the peer has not yet acknowledged.",
        _numbers(send_queue, _some(size)),
        send_queue,
        rank=4,
    ),
    Column(
        "receive_queue",
        "RECVQ",
        7,
        "Bytes received that the process has not yet read.",
        _numbers(receive_queue, _some(size)),
        receive_queue,
        rank=4,
    ),
    Column(
        "limit",
        "LIMITED BY",
        14,
        "What limited the connection in the last interval, if the counters prove it; w explains.",
        _limit_texts,
        lambda table: limits(table.change),
        right=False,
        least=12,
    ),
)
BY_COLUMN = {column.name: column for column in COLUMNS}


def order(keys: Keys) -> Places:
    """Return the places in order: numbers with the largest first, texts by the alphabet."""
    if keys.dtype == object:
        return np.argsort(keys, kind="stable")
    return np.argsort(-keys.astype(np.float64), kind="stable")


def shown_columns(table: Table) -> list[Column]:
    """Return the columns that tell something: the namespace only where there are several."""
    several = len(np.unique(table.rows["netns"])) > 1
    return [column for column in COLUMNS if several or column.name != "netns"]
