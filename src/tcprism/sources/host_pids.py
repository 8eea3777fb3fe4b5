"""Process ids of the host, that is, of the initial pid namespace.

BPF programs know processes by those, and so events have them. In a pid namespace, that of a
container, `ps` and the user know others.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from tcprism.errors import KernelRefused, MachineError
from tcprism.features import machine
from tcprism.features.kernel import has_task_storage
from tcprism.filters import Criteria
from tcprism.kernel.object import BpfObject, LoadError

_PROGRAM = "iterate_pids"


def own_pid() -> int:
    """Return this process's id on the host. Raises KernelRefused and MachineError."""
    here = int(os.readlink("/proc/self"))
    return host_pids([here])[here]


def host_pids(pids: Iterable[int]) -> dict[int, int]:
    """Return processes' ids on the host, by their ids in /proc here, less those that have ended.

    Raises KernelRefused and MachineError.
    """
    if machine.proc_is_of_host():
        return {pid: pid for pid in pids}
    if not machine.proc_is_own():
        raise MachineError(
            "/proc is that of another pid namespace, so processes cannot be told:"
            " mount this one's, `mount -t proc proc /proc`"
        )
    known = _ids()
    return {pid: known[pid] for pid in pids if pid in known}


def on_host(chosen: Criteria) -> Criteria:
    """Return a filter with the ids that its processes have on the host, as the kernel wants it."""
    return replace(chosen, pids=tuple(host_pids(chosen.pids).values()))


def _ids() -> dict[int, int]:
    """Return, for each process of this pid namespace, its id on the host."""
    with BpfObject() as bpf:
        try:
            bpf.select((_PROGRAM,))
            if not has_task_storage():
                bpf.without_storage()
            bpf.load()
            pairs = np.frombuffer(bpf.iterate(_PROGRAM), np.uint32).reshape(-1, 2)
        except LoadError as error:
            raise KernelRefused(
                f"this kernel refuses to list its processes ({error}); 5.8 is the first that can",
                tuple(error.log),
            ) from error
    return {int(here): int(host) for here, host in pairs}
