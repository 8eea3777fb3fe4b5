"""Snapshots: what the kernel counts at every open TCP socket, read by an iterator when asked."""

from __future__ import annotations

import os
import time
from types import TracebackType
from typing import Self

import numpy as np

from tcprism.errors import KernelRefused
from tcprism.events import Batch, Part
from tcprism.events._wire import SNAPSHOT
from tcprism.features import machine
from tcprism.features.kernel import has_task_storage
from tcprism.filters import Criteria, descendants, pid_rows
from tcprism.kernel.object import BpfObject, LoadError
from tcprism.names.context import cgroup_root, machine_context

_PROGRAM = "iterate_snapshot"


class Snapshots:
    """Takes snapshots from `with` to its end: each has a record for every process and socket.

    Raises PermissionMissing, LibraryMissing or KernelRefused when entered.
    """

    def __init__(self, chosen: Criteria) -> None:
        self._filter = chosen

    def __enter__(self) -> Self:
        machine.require()
        self._cgroup_root = cgroup_root()
        self._context = machine_context(self._cgroup_root)
        self._object = BpfObject()
        try:
            self._load()
        except LoadError as error:
            self.close()
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
        self.close()

    def close(self) -> None:
        """Unload the iterator."""
        self._object.close()
        if self._cgroup_root >= 0:
            os.close(self._cgroup_root)

    def _load(self) -> None:
        self._object.select((_PROGRAM,))
        self._object.configure({"tick_ns": machine.tick_ns(), **self._filter.switches()}, {})
        if not has_task_storage():
            self._object.without_storage()
        self._object.load()
        for name, entries in self._filter.entries().items():
            for key, value in entries.items():
                self._object.put(name, key, value)

    def take(self) -> Batch:
        """Return the sockets as they are now."""
        self._follow_descendants()
        rows = np.frombuffer(self._object.iterate(_PROGRAM), SNAPSHOT)
        return Batch([Part(rows, context=self._context)], time.time_ns() - time.monotonic_ns())

    def _follow_descendants(self) -> None:
        if self._filter.follow:
            pids = {*self._filter.pids, *descendants(self._filter.pids)}
            for key, value in pid_rows(pids).items():
                self._object.put("pids", key, value)
