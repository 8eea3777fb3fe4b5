"""Pairs: who talks to whom, as nodes and edges."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from tcprism.events._wire import MICROSECONDS_UNKNOWN
from tcprism.web.connections import Connections

EDGES_MAX = 60
CONNECTIONS_MAX = 50_000  # the latest


class Node(NamedTuple):
    """A node: how it is shown, the word that finds its connections, and what it is."""

    name: str
    word: str
    kind: str


def pairs(found: Connections) -> dict[str, Any]:
    """Return containers, processes and peers, clients apart from servers, and what went between.

    A node has a name and a kind: container, process, or address where neither is known.

    Edges have places of their nodes. Those that moved most are kept, and those with retransmissions
    before others.
    """
    edges: dict[tuple[Node, Node], dict[str, Any]] = {}
    table = found.table
    moved = np.maximum(found.moved("written"), found.moved("read")[:, ::-1]).sum(axis=1)
    again = table["causes"].sum(axis=1)
    for number in range(max(0, len(found) - CONNECTIONS_MAX), len(found)):
        client = found.client_side(number)
        key = _node(found, number, client, port=False), _node(found, number, 1 - client, port=True)
        edge = edges.setdefault(key, dict.fromkeys(_SUMS, 0) | {"srtt_us": None})
        edge["connections"] += 1
        edge["bytes"] += int(moved[number])
        edge["retransmissions"] += int(again[number])
        edge["segments"] += int(table["segments"][number])
        edge["requests"] += int(table["requests"][number])
        edge["failures"] += int(table["failures"][number])
        trip = int(table["srtt_us"][number].min())
        if trip != MICROSECONDS_UNKNOWN:
            edge["srtt_us"] = max(trip, edge["srtt_us"] or 0)
    shown = sorted(edges, key=lambda key: (-edges[key]["retransmissions"], -edges[key]["bytes"]))
    shown = shown[:EDGES_MAX]
    clients, servers = (list(dict.fromkeys(key[end] for key in shown)) for end in (0, 1))
    return {
        "clients": [node._asdict() for node in clients],
        "servers": [node._asdict() for node in servers],
        "edges": [
            edges[key] | {"client": clients.index(key[0]), "server": servers.index(key[1])}
            for key in shown
        ],
        "left_out": len(edges) - len(shown),
    }


_SUMS = ("connections", "bytes", "segments", "retransmissions", "requests", "failures")


def _node(found: Connections, number: int, side: int, port: bool) -> Node:
    """Return what is at an end: its container, its process, or its address."""
    owner, end = found.owner(number, side), found.ends[number][side]
    address, _, at = end.rpartition(":")
    container = found.containers[found.table["container"][number, side]]
    if container:
        return Node(f"{container} :{at}" if port else container, container, "container")
    if owner == "-":
        return Node(end if port else address, end if port else address, "address")
    return Node(f"{owner} :{at}" if port else owner, owner, "process")
