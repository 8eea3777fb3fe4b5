"""Snapshots: what the kernel counts at every open TCP socket, read by an iterator when asked."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from tcprism.errors import KernelRefused
from tcprism.events import Batch, Part
from tcprism.events._wire import SNAPSHOT
from tcprism.features import machine
from tcprism.filters import Filter, descendants
from tcprism.kernel.iterator import read_iterator
from tcprism.kernel.object import BpfObject, LoadError, has_task_storage

_PROGRAM = "iterate_snapshot"
_CONNECTION_FILTERS = ("network_namespaces", "hosts", "remote_hosts")


class Snapshots:
    """Takes snapshots from `with` to its end: each has a record for every process and socket.

    Addresses, ports and namespaces are filtered in the kernel, processes here. Raises
    PermissionMissing, LibraryMissing or KernelRefused when entered.
    """

    def __init__(self, chosen: Filter) -> None:
        self._filter = chosen

    def __enter__(self) -> Self:
        machine.require_privileges()
        self._object = BpfObject()
        try:
            self._link = self._load()
        except LoadError as error:
            self._object.close()
            raise KernelRefused(
                f"this kernel refuses to list its sockets ({error}); 5.8 is the first that can",
                tuple(error.log),
            ) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._object.close()

    def _load(self) -> int:
        self._object.select((_PROGRAM,))
        self._object.configure(
            {"tick_ns": machine.tick_ns(), **self._filter.switches()},
            {},
        )
        if not has_task_storage():
            self._object.without_storage()
        self._object.load()
        entries = self._filter.entries()
        for name in _CONNECTION_FILTERS:
            for key, value in entries[name].items():
                self._object.put(name, key, value)
        return self._object.attach_iterator(_PROGRAM)

    def take(self) -> Batch:
        """Return the sockets as they are now."""
        rows = np.frombuffer(read_iterator(self._link), SNAPSHOT)
        part = Part(rows).take(owned(rows, self._filter))
        return Batch([part], time.time_ns() - time.monotonic_ns())


def owned(rows: NDArray[np.void], chosen: Filter) -> NDArray[np.bool_]:
    """Tell which records are of processes that a filter lets pass."""
    passes = np.ones(len(rows), np.bool_)
    if chosen.pids:
        pids = {*chosen.pids, *(descendants(chosen.pids) if chosen.follow else ())}
        passes &= np.isin(rows["pid"], [*pids])
    if chosen.comms:
        names = [os.fsencode(comm)[:15] for comm in chosen.comms]
        passes &= np.isin(rows["comm"], names)
    if chosen.cgroups:
        below = [ident for path in chosen.cgroups for ident in _cgroup_ids(path)]
        passes &= np.isin(rows["cgroup_id"], below)
    return passes


def _cgroup_ids(root: Path) -> list[int]:
    """Return the ids of a cgroup and of all below it: their directories' inodes."""
    return [os.stat(path).st_ino for path, _, _ in os.walk(root)]
