"""Pairs: who talks to whom, as nodes and edges."""

from __future__ import annotations

from typing import Any

import numpy as np

from tcprism.events._wire import MICROSECONDS_UNKNOWN
from tcprism.web.connections import Connections

EDGES_MAX = 60
CONNECTIONS_MAX = 50_000  # the latest


def pairs(found: Connections) -> dict[str, Any]:
    """Return processes and peers, clients apart from servers, and what went between them.

    Edges have places of their nodes. Those that moved most are kept, and those with retransmissions
    before others.
    """
    edges: dict[tuple[str, str], dict[str, Any]] = {}
    table = found.table
    moved = np.maximum(found.moved("written"), found.moved("read")[:, ::-1]).sum(axis=1)
    again = table["causes"].sum(axis=1)
    for number in range(max(0, len(found) - CONNECTIONS_MAX), len(found)):
        client = found.client_side(number)
        key = _name(found, number, client, port=False), _name(found, number, 1 - client, port=True)
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
        "clients": clients,
        "servers": servers,
        "edges": [
            edges[key] | {"client": clients.index(key[0]), "server": servers.index(key[1])}
            for key in shown
        ],
        "left_out": len(edges) - len(shown),
    }


_SUMS = ("connections", "bytes", "segments", "retransmissions", "requests", "failures")


def _name(found: Connections, number: int, side: int, port: bool) -> str:
    """Return the process at an end, or its address where that is not known."""
    owner, end = found.owner(number, side), found.ends[number][side]
    if port:
        return end if owner == "-" else f"{owner} :{end.rpartition(':')[2]}"
    return end.rpartition(":")[0] if owner == "-" else owner
