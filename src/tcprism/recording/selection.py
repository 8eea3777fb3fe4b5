"""The filters of the kernel, evaluated here: which records of a batch pass some criteria."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray

from tcprism.events import Batch, Part
from tcprism.events._wire import COMM_LENGTH
from tcprism.events.context import Owner
from tcprism.events.kinds import NUMBERS
from tcprism.filters import Criteria, IpNetwork, scope_of

Mask = NDArray[np.bool_]
Ranges = Iterable[tuple[int, int]]

_PORTS = 1 << 16
_V4_BITS = 96  # an IPv4 address inside ::ffff:0:0/96


class Selection:
    """Chooses records by filter and kind and cuts payloads, as the kernel does when it traces.

    `kinds` None takes all, `payload` None leaves payloads as long as they are.
    """

    def __init__(
        self,
        chosen: Criteria | None = None,
        kinds: Iterable[str] | None = None,
        payload: int | None = None,
    ) -> None:
        self.kinds = None if kinds is None else tuple(kinds)
        self._filter = chosen or Criteria()
        self._kinds = None if self.kinds is None else [NUMBERS[kind] for kind in self.kinds]
        self._payload = payload

    def __call__(self, batch: Batch) -> Batch:
        """Return what passes."""
        parts = (self._choose(part) for part in batch.parts)
        return Batch([part for part in parts if len(part)], batch.clock_offset_ns)

    def _choose(self, part: Part) -> Part:
        mask = np.ones(len(part), np.bool_)
        for check in self._checks(part):
            mask &= check
        chosen = part if mask.all() else part.take(mask)
        return chosen if self._payload is None else shortened(chosen, self._payload)

    def _checks(self, part: Part) -> Iterator[Mask]:
        if self._kinds is not None:
            yield np.isin(part.rows["kind"], self._kinds)
        yield from checks(self._filter, part)


def checks(chosen: Criteria, part: Part) -> Iterator[Mask]:
    """Yield, for each field of a filter that is not empty, which records pass it."""
    rows = part.rows
    if chosen.pids:
        yield np.isin(rows["pid"], chosen.pids)
    if chosen.comms:
        names = [os.fsencode(comm)[: COMM_LENGTH - 1] for comm in chosen.comms]
        yield np.isin(rows["comm"], np.array(names, f"S{COMM_LENGTH}"))
    if chosen.netns:
        yield np.isin(rows["netns"], chosen.netns)
    if chosen.cgroups or chosen.containers:
        yield _owned(chosen, part)
    if chosen.family:
        yield np.equal(rows["family"], chosen.family)
    yield from _end_checks(chosen, part)


def _end_checks(chosen: Criteria, part: Part) -> Iterator[Mask]:
    """Yield the checks of addresses and ports."""
    rows = part.rows
    if chosen.hosts:
        yield _in_networks(part, "local_ip", chosen.hosts) | _in_networks(
            part, "remote_ip", chosen.hosts
        )
    if chosen.remote_hosts:
        yield _in_networks(part, "remote_ip", chosen.remote_hosts)
    if chosen.ports:
        wanted = _port_table(chosen.ports)
        yield wanted[rows["local_port"]] | wanted[rows["remote_port"]]
    if chosen.local_ports:
        yield _port_table(chosen.local_ports)[rows["local_port"]]
    if chosen.remote_ports:
        yield _port_table(chosen.remote_ports)[rows["remote_port"]]


def _port_table(ranges: Ranges) -> Mask:
    table = np.zeros(_PORTS, np.bool_)
    for first, last in ranges:
        table[first : last + 1] = True
    return table


def _in_networks(part: Part, field: str, networks: Iterable[IpNetwork]) -> Mask:
    mask = np.zeros(len(part), np.bool_)
    for network in networks:
        mask |= _in_network(part, field, network)
    return mask


def _in_network(part: Part, field: str, network: IpNetwork) -> Mask:
    """Compare whole bytes, then the bits that are left."""
    packed, length = network.network_address.packed, network.prefixlen
    if network.version == 4:
        packed, length = bytes(12) + packed, length + _V4_BITS
    start = 12 if network.version == 4 else 0
    whole, bits = divmod(length, 8)
    addresses, wanted = part.rows[field], np.frombuffer(packed, np.uint8)
    mask: Mask = (addresses[:, start:whole] == wanted[start:whole]).all(axis=1)
    if bits:
        mask &= (addresses[:, whole] ^ wanted[whole]) >> (8 - bits) == 0
    mask &= part.rows["family"] == network.version
    if scope := scope_of(network):
        mask &= part.rows["scope_id"] == scope
    return mask


def _owned(chosen: Criteria, part: Part) -> Mask:
    """Tell whose owner, as it was recorded, is in one of the cgroups or containers."""
    ids, places = np.unique(np.ascontiguousarray(part.rows["cgroup_id"]), return_inverse=True)
    owners = map(part.context.owner, ids.tolist())
    inside = [_in_cgroups(chosen, owner) or _in_containers(chosen, owner) for owner in owners]
    return np.array(inside, np.bool_)[places]


def _in_cgroups(chosen: Criteria, owner: Owner) -> bool:
    path = None if owner.cgroup is None else PurePath(owner.cgroup)
    return path is not None and any(path.is_relative_to(root) for root in chosen.cgroups)


def _in_containers(chosen: Criteria, owner: Owner) -> bool:
    identity = owner.container_id or ""
    return any(
        text == owner.container or (text and identity.startswith(text))
        for text in chosen.containers
    )


def shortened(part: Part, limit: int) -> Part:
    """Return the same records with at most `limit` bytes of payload each."""
    if part.payload is None:
        return part
    lengths = part.payload_lengths()
    if not (lengths > limit).any():
        return part
    rows = part.rows.copy()
    rows["payload_length"] = np.minimum(lengths, limit)
    return replace(part, rows=rows, payload=part.payload[:, : max(1, limit)])
