"""Whose an event is, for metrics: few values, whatever the number of connections."""

from __future__ import annotations

import ipaddress
import os
import time
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tcprism.events import Part
from tcprism.events._wire import EventKind
from tcprism.events.context import Context
from tcprism.events.escape import escape
from tcprism.events.names import STATES
from tcprism.metrics.series import Key

Ids = NDArray[np.intp]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

PIDS_MAX = 65_536  # processes that are remembered
LISTENER_STAYS = 600.0  # seconds that a port is a listener's after it was last seen to be
_SHORT_ID = 12  # digits of a container's id, as engines show it
_LISTEN = STATES.index("LISTEN")
_V4 = 96  # bits before an IPv4 address in a mapped one

# IANA's special-purpose address registries.
KNOWN_PEERS = {
    "loopback": ("127.0.0.0/8", "::1/128"),
    "link-local": ("169.254.0.0/16", "fe80::/10"),
    "private": ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"),
}
PUBLIC = "public"

CLIENT, SERVER, UNKNOWN = 1, 2, 0
ROLES = ("", "client", "server")


def combined(*columns: NDArray[Any]) -> tuple[Ids, Ids]:
    """Number the distinct rows of some columns: the number of each row, a row of each number."""
    ids = np.zeros(len(columns[0]), np.intp)
    first = np.zeros(min(1, len(ids)), np.intp)
    for column in columns:
        if not len(column) or (column == column[0]).all():  # most often
            continue
        values, places = np.unique(np.ascontiguousarray(column), return_inverse=True)
        _, first, ids = np.unique(
            ids * len(values) + places, return_index=True, return_inverse=True
        )
    return ids, first


class Owned(NamedTuple):
    """Whose records are: a number for each, and what each number stands for."""

    ids: Ids
    keys: Sequence[Key]

    def where(self, which: NDArray[np.bool_]) -> Owned:
        """Return the same for some of the records."""
        return Owned(self.ids[which], self.keys)

    def and_by(self, *columns: NDArray[Any]) -> Owned:
        """Return the same with more attributes, whose values are in columns."""
        if not columns:
            return self
        ids, first = combined(self.ids, *columns)
        rest = zip(*(map(str, column[first].tolist()) for column in columns), strict=True)
        owners = self.ids[first].tolist()
        keys = [(*self.keys[at], *texts) for at, texts in zip(owners, rest, strict=True)]
        return Owned(ids, keys)


class Peers:
    """Classes of addresses by name; the first that has an address is its class."""

    def __init__(self, named: Mapping[str, Iterable[str]]) -> None:
        self.names = [*named, *KNOWN_PEERS, PUBLIC]
        groups = [*named.values(), *KNOWN_PEERS.values()]
        self._rules = [(at, *_mask(text)) for at, group in enumerate(groups) for text in group]

    def of(self, addresses: NDArray[Any]) -> NDArray[np.intp]:
        """Return the number of the class of each address (rows of 16 bytes)."""
        halves = np.ascontiguousarray(addresses).view(">u8").astype(np.uint64).reshape(-1, 2)
        high, low = halves[:, 0].copy(), halves[:, 1].copy()
        found = np.full(len(halves), len(self.names) - 1)
        for number, mask, value in reversed(self._rules):
            found[(high & mask[0] == value[0]) & (low & mask[1] == value[1])] = number
        return found


def _mask(text: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return mask and value of a network's addresses, as two halves."""
    network: Network = ipaddress.ip_network(text, strict=False)
    bits, value = network.prefixlen, int(network.network_address)
    if network.version == 4:
        bits, value = bits + _V4, value | 0xFFFF << 32
    whole = ((1 << bits) - 1) << (128 - bits)
    halves = [(number >> 64, number & (1 << 64) - 1) for number in (whole, value)]
    return np.array(halves[0], np.uint64), np.array(halves[1], np.uint64)


class Processes:
    """Names of processes, and the cgroups that they are in; `proc`: /proc has the host's pids."""

    def __init__(self, proc: bool) -> None:
        self._proc = proc
        self._known: OrderedDict[int, str] = OrderedDict()
        self._cgroups: OrderedDict[int, int] = OrderedDict()
        self._identities: dict[int, Key] = {}
        self._counts: Counter[Key] = Counter()  # of known processes with an identity

    def name(self, pid: int, comm: bytes) -> str:
        """Return the name of a process one of whose threads is called `comm`."""
        if not pid:
            return ""
        known = self._known.get(pid)
        if known is None:
            known = self._known[pid] = escape(self._read(pid) or comm.split(b"\0")[0])
            if len(self._known) > PIDS_MAX:
                self._forget(next(iter(self._known)))
        return known

    def _read(self, pid: int) -> bytes:
        if not self._proc:
            return b""
        try:
            return Path(f"/proc/{pid}/comm").read_bytes().removesuffix(b"\n")
        except OSError:  # it has ended
            return b""

    def identify(self, pid: int, identity: Key) -> None:
        """Take note of what series say of a process that is known: the attributes IDENTITY."""
        before = self._identities.get(pid)
        if before == identity or pid not in self._known:
            return
        self._lose(before)
        self._identities[pid] = identity
        self._counts[identity] += 1

    def _lose(self, identity: Key | None) -> None:
        if identity is not None:
            self._counts[identity] -= 1
            if not self._counts[identity]:
                del self._counts[identity]

    def _forget(self, pid: int) -> None:
        del self._known[pid]
        self._lose(self._identities.pop(pid, None))

    def look(self) -> None:
        """Forget the processes that have ended, for their ids will be those of others, or renamed.

        A shell that waits for a database may become the program that uses it.
        """
        if self._proc:
            for pid, name in [*self._known.items()]:
                now = self._read(pid)
                if escape(now) != name if now else not os.path.exists(f"/proc/{pid}"):
                    self._forget(pid)
        else:
            self._known.clear()
            self._identities.clear()
            self._counts.clear()

    def lives(self, identity: Key) -> bool:
        """Tell whether a process of which series say this is known to be there."""
        return identity in self._counts

    def learn(self, part: Part) -> None:
        """Take note of the cgroups of processes."""
        _, first = combined(part.rows["pid"], part.rows["cgroup_id"])
        rows = part.rows[first]
        for pid, cgroup in zip(rows["pid"].tolist(), rows["cgroup_id"].tolist(), strict=True):
            if pid and cgroup:
                self._cgroups[pid] = cgroup
                self._cgroups.move_to_end(pid)
        while len(self._cgroups) > PIDS_MAX:
            self._cgroups.popitem(last=False)

    def cgroup(self, pid: int) -> int:
        """Return the cgroup of a process, 0 when it is not known."""
        return self._cgroups.get(pid, 0)


class Listeners:
    """Ports that processes here listen on, and with that which end of a connection is here."""

    def __init__(self, ephemeral: tuple[int, int]) -> None:
        self._least, self._most = ephemeral
        self._seen: dict[int, float] = {}  # by namespace and port
        self._sorted = np.zeros(0, np.uint64)

    def learn(self, part: Part) -> None:
        """Take note of accepted connections and of sockets that listen."""
        if part.family == "snapshot":
            listens = part.rows["state"] == _LISTEN
        else:
            listens = part.rows["kind"] == EventKind.ACCEPT
        now = time.monotonic()
        found = np.unique(_place(part, "local_port")[listens]).tolist()
        if not set(found) <= self._seen.keys():
            self._sorted = np.array(sorted({*self._seen, *found}), np.uint64)
        self._seen.update(dict.fromkeys(found, now))

    def look(self) -> None:
        """Forget ports at which nobody has listened for long."""
        limit = time.monotonic() - LISTENER_STAYS
        self._seen = {place: at for place, at in self._seen.items() if at > limit}
        self._sorted = np.array(sorted(self._seen), np.uint64)

    def roles(self, part: Part) -> NDArray[np.intp]:
        """Return which end each record is of: CLIENT, SERVER, UNKNOWN."""
        kinds = part.rows["kind"]
        listens = np.isin(_place(part, "local_port"), self._sorted)
        passing = self._passing(part.rows["local_port"])
        roles = np.where(listens, SERVER, np.where(passing, CLIENT, UNKNOWN))
        roles[kinds == EventKind.ACCEPT] = SERVER
        roles[kinds == EventKind.CONNECT] = CLIENT
        return roles

    def ports(self, part: Part, roles: NDArray[np.intp]) -> NDArray[Any]:
        """Return the port that the server listens on, 0 where that is not known."""
        local, remote = part.rows["local_port"], part.rows["remote_port"]
        here = np.isin(_place(part, "remote_port"), self._sorted)
        known = np.where(self._passing(remote) & ~here, 0, remote)
        return np.where(roles == SERVER, local, np.where(roles == CLIENT, known, 0))

    def _passing(self, ports: NDArray[Any]) -> NDArray[np.bool_]:
        passing: NDArray[np.bool_] = (ports >= self._least) & (ports <= self._most)
        return passing


def _place(part: Part, port: str) -> NDArray[np.uint64]:
    place: NDArray[np.uint64] = part.rows["netns"].astype(np.uint64) << np.uint64(16)
    place |= part.rows[port]
    return place


class Owners:
    """Makes the values of the attributes OWNER, from what records say."""

    def __init__(self, peers: Peers, processes: Processes, listeners: Listeners) -> None:
        self.peers = peers
        self.processes = processes
        self.listeners = listeners

    def learn(self, part: Part) -> None:
        """Take note of what explains other events."""
        self.processes.learn(part)
        self.listeners.learn(part)

    def of(self, part: Part, server: bool = False) -> Owned:
        """Return whose each record is.

        With `server`, requests are seen from the server, which is their remote end; else all are of
        the local end.
        """
        rows = part.rows
        if part.family == "request":
            roles = np.full(len(part), CLIENT)
        else:
            roles = self.listeners.roles(part)
        ports = rows["remote_port"] if server else self.listeners.ports(part, roles)
        peers = self.peers.of(rows["local_ip" if server else "remote_ip"])
        pids, comms = ("server_pid", "server_comm") if server else ("pid", "comm")
        cgroups = np.zeros(len(part), np.uint64) if server else rows["cgroup_id"]
        ids, first = combined(rows[pids], cgroups, ports, peers)
        keys = [
            self._key(
                part.context,
                int(rows[pids][at]),
                bytes(rows[comms][at]),
                int(cgroups[at]),
                int(ports[at]),
                self.peers.names[peers[at]],
            )
            for at in first.tolist()
        ]
        return Owned(ids, keys)

    def _key(
        self, context: Context, pid: int, comm: bytes, cgroup: int, port: int, peer: str
    ) -> Key:
        owner = context.owner(cgroup or self.processes.cgroup(pid))
        identity = (
            self.processes.name(pid, comm),
            owner.container or (owner.container_id or "")[:_SHORT_ID],
            owner.pod_uid or "",
            owner.namespace or "",
            owner.workload or "",
            owner.unit or "",
        )
        self.processes.identify(pid, identity)
        return (*identity, str(port) if port else "", peer)


def ephemeral_ports() -> tuple[int, int]:
    """Return the first and last port that the kernel gives to clients; its default if unknown."""
    try:
        least, most = Path("/proc/sys/net/ipv4/ip_local_port_range").read_bytes().split()
    except OSError:
        return 32_768, 60_999
    return int(least), int(most)
