"""What the user chose to see, and how the kernel is told to filter by it."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tcprism.errors import UsageError
from tcprism.events._wire import (
    CGROUPS_MAX,
    COMM_LENGTH,
    COMMS_MAX,
    NETNS_MAX,
    PIDS_A_ROW,
    PORT_WORDS,
    PREFIXES_MAX,
)

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_U32 = struct.Struct("=I")
_FAMILY_BITS = 32
_SCOPE_BITS = 32
V4_BITS = 96  # an IPv4 prefix inside ::ffff:0:0/96


# The sizes of the kernel's maps.
_AT_MOST = {
    "cgroups": CGROUPS_MAX,
    "comms": COMMS_MAX,
    "netns": NETNS_MAX,
    "hosts": PREFIXES_MAX,
    "remote_hosts": PREFIXES_MAX,
}


@dataclass(frozen=True, slots=True)
class Criteria:
    """Values of one field are alternatives; fields combine with and; an empty field lets all pass.

    `pids` are process ids, `comms` thread names, `hosts` and `remote_hosts` addresses or networks,
    the ports inclusive ranges, `cgroups` paths of cgroup v2 directories, `netns` inodes of network
    namespaces, `family` 4, 6 or 0 for both. `follow` adds the children that `pids` make.
    `containers` are names, or ids or how they begin; only recorded events are checked for them,
    the kernel knows containers by their `cgroups`.
    """

    pids: tuple[int, ...] = ()
    comms: tuple[str, ...] = ()
    hosts: tuple[IpNetwork, ...] = ()
    remote_hosts: tuple[IpNetwork, ...] = ()
    ports: tuple[tuple[int, int], ...] = ()
    local_ports: tuple[tuple[int, int], ...] = ()
    remote_ports: tuple[tuple[int, int], ...] = ()
    cgroups: tuple[Path, ...] = ()
    netns: tuple[int, ...] = ()
    family: int = 0
    follow: bool = False
    containers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.follow and not self.pids:
            raise UsageError("--follow needs the processes to follow: add --pid or a command")
        for name, most in _AT_MOST.items():
            if len(getattr(self, name)) > most:
                raise UsageError(f"at most {most} {name} can be chosen at once")

    def switches(self) -> dict[str, object]:
        """Return the fields of struct config that turn the filters on."""
        return {
            "by_pid": bool(self.pids),
            "by_comm": bool(self.comms),
            "netns": self.netns[0] if len(self.netns) == 1 else 0,
            "by_netns": len(self.netns) > 1,
            "by_host": bool(self.hosts),
            "by_remote_host": bool(self.remote_hosts),
            "by_port": bool(self.ports),
            "by_local_port": bool(self.local_ports),
            "by_remote_port": bool(self.remote_ports),
            "lowest_port": min((first for first, _ in self.ports + self.local_ports), default=0),
            "highest_port": max((last for _, last in self.ports + self.local_ports), default=0),
            "family": self.family,
            "cgroups": len(self.cgroups),
            "cgroup_ids": _cgroup_ids(self.cgroups),
            "port": _port_bits(self.ports),
            "local_port": _port_bits(self.local_ports),
            "remote_port": _port_bits(self.remote_ports),
        }

    def entries(self) -> dict[str, dict[bytes, bytes]]:
        """Return what goes into each filter map, key by key."""
        return {
            "pids": pid_rows(self.pids),
            "comms": _a_set(map(_comm_key, self.comms)),
            "network_namespaces": _a_set(map(_U32.pack, self.netns)),
            "hosts": _a_set(map(_prefix_key, self.hosts)),
            "remote_hosts": _a_set(map(_prefix_key, self.remote_hosts)),
        }


def _a_set(keys: Iterable[bytes]) -> dict[bytes, bytes]:
    return dict.fromkeys(keys, b"\1")


def pid_rows(pids: Iterable[int]) -> dict[bytes, bytes]:
    """Return the rows that say of each pid, with a byte, whether it is chosen."""
    rows: dict[bytes, bytearray] = {}
    for pid in pids:
        row = rows.setdefault(_U32.pack(pid // PIDS_A_ROW), bytearray(PIDS_A_ROW))
        row[pid % PIDS_A_ROW] = 1
    return {key: bytes(row) for key, row in rows.items()}


def _port_bits(ranges: Iterable[tuple[int, int]]) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    bits = np.zeros(PORT_WORDS * 64, dtype=np.uint8)
    for first, last in ranges:
        bits[first : last + 1] = 1
    return np.packbits(bits, bitorder="little").view(np.uint64)


def _cgroup_ids(paths: Iterable[Path]) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """Return the ids of cgroups: the inodes of their directories (kernfs, 64 bits)."""
    ids = np.zeros(CGROUPS_MAX, np.uint64)
    for index, path in enumerate(paths):
        ids[index] = path.stat().st_ino
    return ids


def _comm_key(comm: str) -> bytes:
    """Return a name as the kernel keeps it: cut to 15 bytes, padded with NULs."""
    return os.fsencode(comm)[: COMM_LENGTH - 1].ljust(COMM_LENGTH, b"\0")


def _prefix_key(network: IpNetwork) -> bytes:
    """Return struct prefix: its length in bits, the family, the address, its scope.

    IPv4 is there as mapped IPv6.
    """
    packed = network.network_address.packed
    length = _FAMILY_BITS + network.prefixlen
    scope_id = scope_of(network)
    if network.version == 4:
        packed = b"\0" * 10 + b"\xff\xff" + packed
        length += V4_BITS
    if scope_id:
        length += _SCOPE_BITS
    return _U32.pack(length) + _U32.pack(network.version) + packed + _U32.pack(scope_id)


def scope_of(network: IpNetwork) -> int:
    """Return the index of the interface that an address is of, 0 for any."""
    return int(getattr(network.network_address, "scope_id", None) or 0)


def descendants(pids: Iterable[int]) -> set[int]:
    """Return the children of processes, their children, and so on, as they are now."""
    children: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            parent = int(status.read_bytes().rpartition(b")")[2].split()[1])
            children.setdefault(parent, []).append(int(status.parent.name))
    found: set[int] = set()
    waiting = list(pids)
    while waiting:
        new = set(children.get(waiting.pop(), ())) - found
        found |= new
        waiting += new
    return found
