"""Snapshots: the kernel's counters of every open TCP socket, read by an iterator on demand."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self

import numpy as np

from tcprism.errors import KernelRefused
from tcprism.events import Batch, Part
from tcprism.events._wire import SNAPSHOT
from tcprism.events.batch import current_clock_offset_ns
from tcprism.events.facts import Facts
from tcprism.events.ledger import Ledger
from tcprism.events.scopes import without_other_scopes
from tcprism.events.units import counted
from tcprism.features import machine
from tcprism.features.kernel import has_task_storage
from tcprism.filters import Criteria, descendants, pid_rows
from tcprism.kernel.object import BpfObject, LoadError
from tcprism.names.context import cgroup_root, machine_context
from tcprism.sources.host_pids import host_pids, on_host
from tcprism.stages import Stage

_PROGRAM = "iterate_snapshot"


class Snapshots:
    """Takes snapshots from `with` to its end: each has a record for every process and socket.

    As a source it takes one every `every` seconds and a last one when it is stopped, less often
    where there are so many sockets that it would take more than `share` of the time. `pace` is the
    seconds that it keeps. `latest` is the number of the latest snapshot, from 1 on, and how many
    records it has: one without any makes no batch. Raises PermissionMissing, LibraryMissing or
    KernelRefused when entered.
    """

    stages: Sequence[Stage] = ()
    ended = False

    def __init__(self, chosen: Criteria, every: float = 1.0, share: float = 0.05) -> None:
        self._filter = chosen
        self._every = every
        self._share = share
        self.pace = every
        self.latest = 0, 0
        self._next = 0.0
        self._left = True
        self._late = 0
        self._longest = 0.0

    def __enter__(self) -> Self:
        machine.require()
        with ExitStack() as stack:
            root = cgroup_root()
            if root >= 0:
                stack.callback(os.close, root)
            self._context = machine_context(root)
            self._object = stack.enter_context(BpfObject())
            try:
                self._load()
            except LoadError as error:
                raise KernelRefused(
                    f"this kernel refuses to list its sockets ({error}); 5.8 is the first that can",
                    tuple(error.log),
                ) from error
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _load(self) -> None:
        self._object.select((_PROGRAM,))
        self._object.configure({"tick_ns": machine.tick_ns(), **self._filter.switches()}, {})
        if not has_task_storage():
            self._object.without_storage()
        self._object.load()
        for name, entries in on_host(self._filter).entries().items():
            for key, value in entries.items():
                self._object.put(name, key, value)

    @property
    def facts(self) -> Facts:
        """A snapshot is no event: no hook makes it."""
        return Facts(kinds=())

    def now_ns(self) -> int:
        """Return CLOCK_MONOTONIC."""
        return time.monotonic_ns()

    def read(self) -> Batch:
        """Return the sockets as they are now when it is time for that, else nothing."""
        now, before = time.monotonic(), time.process_time()
        if now < self._next:
            return Batch([])
        self._note_delay(now)
        batch = self.take()
        self.pace = max(self._every, (time.process_time() - before) / self._share)
        self._next = now + self.pace
        return batch

    def pause(self) -> float:
        """Return the seconds until the next snapshot."""
        return max(0.0, self._next - time.monotonic())

    def stop(self) -> None:
        """Take only one more."""

    def drain(self) -> Batch:
        """Return the sockets as they are at the end, once."""
        left, self._left = self._left, False
        return self.take() if left else Batch([])

    def _note_delay(self, now: float) -> None:
        if self._next and now - self._next > self._every / 2:
            self._late += 1
            self._longest = max(self._longest, now - self._next + self.pace)

    def ledger(self) -> Ledger:
        """Return no entries, for a snapshot is no event; but how many came late."""
        if not self._late:
            return Ledger(())
        said = (
            f"{counted(self._late, 'snapshot')} came late,"
            f" up to {self._longest:.1f} s after the one before: states in between were not seen"
        )
        return Ledger((), counts={"late_snapshots": self._late}, remarks=(said,))

    def take(self) -> Batch:
        """Return the sockets as they are now."""
        self._follow_descendants()
        rows = without_other_scopes(np.frombuffer(self._object.iterate(_PROGRAM), SNAPSHOT))
        self.latest = self.latest[0] + 1, len(rows)
        return Batch([Part(rows, context=self._context)], current_clock_offset_ns())

    def _follow_descendants(self) -> None:
        if self._filter.follow:
            pids = {*self._filter.pids, *descendants(self._filter.pids)}
            for key, value in pid_rows(host_pids(pids).values()).items():
                self._object.put("pids", key, value)
