"""The BPF object: open -> configure -> load -> attach, each on its own."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Callable, Iterable, Sequence
from ctypes import byref, c_size_t, c_uint32, c_uint64
from functools import cached_property, partial
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from tcprism import interrupts
from tcprism.errors import MachineError
from tcprism.events import _wire
from tcprism.events.escape import escape_text
from tcprism.kernel import libbpf, uprobe

OBJECT = Path(__file__).with_name("tcprism.bpf.o")

_PROGRAM_INFO_SIZE = 256  # more than any struct bpf_prog_info so far
_RUN_TIME, _RUNS = 192, 200  # offsets of run_time_ns, run_cnt; include/uapi/linux/bpf.h
_TRAP_NS = 1_000  # what a uprobe costs beside its program (`make bench ARGS="--only tls"`)
_RECURSION_MISSES = 208  # 5.12+
_THREADS_MAX = 64


class LoadError(Exception):
    """The kernel refused to load or attach; `log` is libbpf's, with the verifier's in it."""

    def __init__(self, step: str, error: OSError, log: list[str]) -> None:
        super().__init__(f"{step}: {error.strerror} (errno {error.errno})")
        self.errno = error.errno or 0
        self.log = log


class BpfObject:
    """tcprism's BPF object in one process. A context manager: leaving it detaches and unloads.

    All methods raise MachineError where the object does not have what this version needs.
    """

    def __init__(self, path: Path = OBJECT) -> None:
        interrupts.check()
        self._library = libbpf.load()
        self._library.log.take()
        self._path = path
        try:
            self._object = self._try("open", "bpf_object__open_file", str(path).encode(), None)
        except LoadError as error:
            raise self._unfit(f"libbpf cannot open it: {error}") from error
        self._links: list[tuple[str, int]] = []  # each with its program
        self._uprobes: list[tuple[str, Callable[[], object]]] = []  # what ends each
        self._mapped: dict[str, mmap.mmap] = {}
        self.loaded: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _try(self, step: str, function: str, *arguments: object) -> int:
        try:
            with interrupts.deferred():
                return int(self._library.checked(function, *arguments))
        except OSError as error:
            raise LoadError(step, error, self._library.log.take()) from error

    def _unfit(self, reason: str) -> MachineError:
        """Return the error for an object of another version, or none."""
        return MachineError(
            f"the BPF programs in {escape_text(str(self._path))} do not fit this version of tcprism"
            f" ({reason}): install it again, or run `python tools/build_bpf.py` in its source tree"
        )

    # open -> configure

    def select(self, programs: Iterable[str]) -> None:
        """Choose the programs to load, by name; all others stay out."""
        chosen = set(programs)
        there = self._programs
        if missing := sorted(chosen - set(there)):
            raise self._unfit(f"there is no program {missing[0]}")
        for name, program in there.items():
            self._library.call("bpf_program__set_autoload", program, name in chosen)
        self.loaded = tuple(sorted(chosen))

    def configure(self, fields: dict[str, object], entries: dict[str, int]) -> None:
        """Write the read-only configuration (struct config) and how many entries maps have."""
        values = np.zeros((), dtype=_wire.CONFIG)
        for name, value in fields.items():
            values[name] = value
        size = c_size_t()
        address = self._library.checked("bpf_map__initial_value", self._map(".rodata"), byref(size))
        if size.value < values.nbytes:
            raise self._unfit("its configuration is another")
        ctypes.memmove(address, values.tobytes(), values.nbytes)
        for name, count in entries.items():
            self._library.checked("bpf_map__set_max_entries", self._map(name), count)

    def for_uprobe_multi(self, programs: Iterable[str]) -> None:
        """Say that programs will be attached by links that have many places (6.6+)."""
        for name in programs:
            self._library.checked(
                "bpf_program__set_expected_attach_type",
                self._program(name),
                uprobe.TRACE_UPROBE_MULTI,
            )

    def without_storage(self) -> None:
        """Leave out the socket and task storage maps, for a kernel that does not know them."""
        for name in ("notes", "deliveries", "calls", "batches"):
            self._library.checked("bpf_map__set_autocreate", self._map(name), False)

    # load -> attach

    def load(self) -> None:
        """Load the selected programs. Raises LoadError."""
        interrupts.check()
        self._try("load", "bpf_object__load", self._object)

    def attach(self, name: str) -> None:
        """Attach a program where its section says. Raises LoadError."""
        self._link(name, "bpf_program__attach")

    def attach_to_cgroup(self, name: str, cgroup: int) -> None:
        """Attach a program to the cgroup behind a descriptor. Raises LoadError."""
        self._link(name, "bpf_program__attach_cgroup", cgroup)

    def attach_to_functions(
        self,
        name: str,
        path: str,
        offsets: Sequence[int],
        *,
        returns: bool,
        multi: bool,
        pid: int | None = None,
    ) -> None:
        """Attach a program to functions at offsets of a file, or to their returns.

        In any process, or in one. Raises LoadError.
        """
        import_module("concurrent.futures.thread")  # to take it off, when no file may be read

        interrupts.check()
        if not multi:
            for offset in offsets:
                where = (returns, pid or -1, os.fsencode(path), offset)
                program = self._program(name)
                link = self._try(f"attach {name}", "bpf_program__attach_uprobe", program, *where)
                self._uprobes.append((name, partial(self._destroy, link)))
            return
        try:
            with interrupts.deferred():
                program = self.program_fd(name)
                link = uprobe.link(program, os.fsencode(path), offsets, returns, pid or 0)
                self._uprobes.append((name, partial(os.close, link)))
        except OSError as error:
            raise LoadError(f"attach {name}", error, self._library.log.take()) from error

    def _destroy(self, link: int) -> None:
        self._library.call("bpf_link__destroy", link)

    def _link(self, name: str, function: str, *where: object) -> None:
        interrupts.check()
        program = self._program(name)
        self._links.append((name, self._try(f"attach {name}", function, program, *where)))

    def iterate(self, name: str) -> bytes:
        """Run an iterator program once over all that it iterates, and return what it wrote.

        Raises LoadError.
        """
        step = f"iterate {name}"
        link = self._try(step, "bpf_program__attach_iter", self._program(name), None)
        try:
            link_fd = self._library.call("bpf_link__fd", link)
            with open(self._try(step, "bpf_iter_create", link_fd), "rb") as output:
                return output.read()
        finally:
            self._library.call("bpf_link__destroy", link)

    def detach(self) -> None:
        """Take every hook off; what is in the maps and rings stays readable."""
        self.detach_programs(self.loaded)

    def detach_programs(self, names: Iterable[str]) -> None:
        """Take some programs off every place."""
        chosen = set(names)
        _at_once([end for name, end in self._uprobes if name in chosen])
        self._uprobes = [each for each in self._uprobes if each[0] not in chosen]
        kept = []
        while self._links:
            name, link = self._links.pop()
            if name in chosen:
                self._destroy(link)
            else:
                kept.append((name, link))
        self._links = kept[::-1]

    def close(self) -> None:
        """Detach, and free programs and maps."""
        self.detach()
        self._mapped.clear()
        if self._object:
            self._library.call("bpf_object__close", self._object)
        self._object = 0

    # loaded

    def map_fd(self, name: str) -> int:
        """Return a map's descriptor; it belongs to this object."""
        return int(self._library.checked("bpf_map__fd", self._map(name)))

    def program_fd(self, name: str) -> int:
        """Return a loaded program's descriptor; it belongs to this object."""
        return int(self._library.checked("bpf_program__fd", self._program(name)))

    def program_fds(self) -> list[int]:
        """Return the descriptors of all loaded programs."""
        return [self.program_fd(name) for name in self.loaded]

    def put(self, name: str, key: bytes, value: bytes) -> None:
        """Write one map entry. Raises OSError."""
        self._library.checked("bpf_map_update_elem", self.map_fd(name), key, value, 0)

    def counters(self) -> np.ndarray[tuple[int], np.dtype[np.void]]:
        """Return the ledger: one row (struct counters) an event kind, all CPUs summed."""
        cpus = int(self._library.call("libbpf_num_possible_cpus"))
        per_cpu = np.zeros(cpus, dtype=_wire.COUNTERS)
        total = np.zeros(_wire.KIND_COUNT, dtype=_wire.COUNTERS)
        for kind in range(_wire.KIND_COUNT):
            key = c_uint32(kind)
            self._library.checked(
                "bpf_map_lookup_elem", self.map_fd("ledger"), byref(key), per_cpu.ctypes.data
            )
            for name in _wire.COUNTERS.names or ():
                total[kind][name] = per_cpu[name].sum()
        return total

    def count(self, name: str) -> int:
        """Return what a map of one number has counted."""
        value, key, descriptor = c_uint64(), c_uint32(0), self.map_fd(name)
        self._library.checked("bpf_map_lookup_elem", descriptor, byref(key), byref(value))
        return value.value

    def is_set(self, name: str) -> bool:
        """Tell whether a program has set a map of one number, which can be mapped as memory.

        To ask the kernel at each look would cost as much as all else of it.
        """
        return self._memory(name)[0] != 0

    def _memory(self, name: str) -> mmap.mmap:
        """Return a map of one value that can be mapped, as memory."""
        if name not in self._mapped:
            where = self.map_fd(name), mmap.PAGESIZE, mmap.MAP_SHARED
            self._mapped[name] = mmap.mmap(*where)
        return self._mapped[name]

    def set_effort(self, **fields: int) -> None:
        """Say how much the programs record (struct effort); what is not named is 0."""
        values = np.zeros((), dtype=_wire.EFFORT)
        for name, value in fields.items():
            values[name] = value
        self._memory("effort")[: values.nbytes] = values.tobytes()

    def missed(self) -> dict[str, int]:
        """Return, per program, the runs that the kernel skipped as it was already running.

        Zero before 5.12, which does not count them.
        """
        return {name: self._missed(self.program_fd(name)) for name in self.loaded}

    def run_time_ns(self) -> int:
        """Return how long all programs have run, while the kernel measured that.

        The traps of uprobes are included, as far as it is known what one takes.
        """
        return sum(self._ran(name) for name in self.loaded)

    def _ran(self, name: str) -> int:
        descriptor = self.program_fd(name)
        traps = self._told(descriptor, _RUNS) if name.startswith("tls_") else 0
        return self._told(descriptor, _RUN_TIME) + traps * _TRAP_NS

    def _missed(self, descriptor: int) -> int:
        return self._told(descriptor, _RECURSION_MISSES)

    def _told(self, descriptor: int, offset: int) -> int:
        """Return a number of struct bpf_prog_info, 0 where the kernel does not have it."""
        info = ctypes.create_string_buffer(_PROGRAM_INFO_SIZE)
        size = c_uint32(_PROGRAM_INFO_SIZE)
        self._library.checked("bpf_obj_get_info_by_fd", descriptor, info, byref(size))
        if size.value < offset + 8:
            return 0
        return int.from_bytes(info.raw[offset : offset + 8], "little")

    def _map(self, name: str) -> int:
        if name == ".rodata":  # libbpf puts the object's name in front
            return self._rodata()
        found = self._library.call("bpf_object__find_map_by_name", self._object, name.encode())
        if not found:
            raise self._unfit(f"there is no map {name}")
        return int(found)

    def _rodata(self) -> int:
        current = self._library.call("bpf_object__next_map", self._object, None)
        while current:
            if self._library.call("bpf_map__name", current).endswith(b".rodata"):
                return int(current)
            current = self._library.call("bpf_object__next_map", self._object, current)
        raise self._unfit("there is no map .rodata")

    def _program(self, name: str) -> int:
        program = self._programs.get(name)
        if program is None:
            raise self._unfit(f"there is no program {name}")
        return program

    @cached_property
    def _programs(self) -> dict[str, int]:
        programs = {}
        current = self._library.call("bpf_object__next_program", self._object, None)
        while current:
            programs[self._library.call("bpf_program__name", current).decode()] = int(current)
            current = self._library.call("bpf_object__next_program", self._object, current)
        return programs


def _at_once(steps: Sequence[Callable[[], object]]) -> None:
    """Take each step in a thread of its own.

    To take off a uprobe, the kernel waits until nobody is in it (RCU): for all in the same time.
    """
    if not steps:
        return
    from concurrent.futures import ThreadPoolExecutor  # not before: it takes milliseconds

    with ThreadPoolExecutor(_THREADS_MAX) as threads:
        for done in [threads.submit(step) for step in steps]:
            done.result()
