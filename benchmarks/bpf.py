"""The benchmarks' own BPF objects, and what the kernel says about a program's runs."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from ctypes import byref, c_uint32
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

from tcprism.kernel import libbpf
from tcprism.kernel.cgroup import open_cgroup_root
from tests.support.bpf import run_syscall_program

_INFO_SIZE = 256  # more than struct bpf_prog_info, include/uapi/linux/bpf.h
_RUN_TIME_NS, _RUN_COUNT = 192, 200
_STATS_RUN_TIME = 0  # enum bpf_stats_type


@dataclass(frozen=True, slots=True)
class Runs:
    """How often a program ran, and for how many nanoseconds in all."""

    count: int
    nanoseconds: int

    def since(self, before: Runs) -> Runs:
        """Return the runs after an earlier moment."""
        return Runs(self.count - before.count, self.nanoseconds - before.nanoseconds)

    @property
    def average(self) -> float:
        """Nanoseconds a run; not a number when there was none."""
        return self.nanoseconds / self.count if self.count else float("nan")


def runs_of(descriptor: int) -> Runs:
    """Return the runs of a program while statistics were on."""
    info = ctypes.create_string_buffer(_INFO_SIZE)
    size = c_uint32(_INFO_SIZE)
    libbpf.load().checked("bpf_obj_get_info_by_fd", descriptor, info, byref(size))
    words = [int.from_bytes(info.raw[at : at + 8], "little") for at in (_RUN_TIME_NS, _RUN_COUNT)]
    return Runs(words[1], words[0])


@contextmanager
def statistics() -> Iterator[None]:
    """Have the kernel take the time of every program's runs, as long as the body runs."""
    descriptor = libbpf.load().checked("bpf_enable_stats", _STATS_RUN_TIME)
    try:
        yield
    finally:
        os.close(descriptor)


class Programs:
    """A BPF object of the benchmarks, loaded; `attach()` puts all its programs on their hooks.

    `entries` is how many entries maps have, where the source does not say it.
    """

    def __init__(self, path: Path, entries: Mapping[str, int] = MappingProxyType({})) -> None:
        self._library = libbpf.load()
        self._object = self._library.checked("bpf_object__open_file", str(path).encode(), None)
        for name, count in entries.items():
            self._library.checked("bpf_map__set_max_entries", self._map(name), count)
        self._library.checked("bpf_object__load", self._object)
        self._links: list[int] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for link in self._links:
            self._library.call("bpf_link__destroy", link)
        self._library.call("bpf_object__close", self._object)

    def attach(self, names: Container[str] | None = None) -> None:
        """Attach the programs, or some; those for packets go to the root of cgroup v2."""
        root = open_cgroup_root()
        programs = self._programs()
        for name, program in programs.items():
            if name not in (programs if names is None else names):
                continue
            if name.startswith("cgroup"):
                link = self._library.checked("bpf_program__attach_cgroup", program, root)
            else:
                link = self._library.checked("bpf_program__attach", program)
            self._links.append(link)
        os.close(root)

    def attach_to_function(self, name: str, path: str, offset: int, *, returns: bool) -> None:
        """Attach a program where a function of a file begins, or where it returns."""
        where = returns, -1, path.encode(), offset
        program = self._programs()[name]
        self._links.append(self._library.checked("bpf_program__attach_uprobe", program, *where))

    def descriptors(self) -> dict[str, int]:
        """Return each program's descriptor by its name."""
        return {
            name: self._library.checked("bpf_program__fd", program)
            for name, program in self._programs().items()
        }

    def map_descriptor(self, name: str) -> int:
        """Return the descriptor of a map."""
        return int(self._library.checked("bpf_map__fd", self._map(name)))

    def test_run(self, name: str, context: bytes) -> bytes:
        """Run a "syscall" program once with a context; return what it made of that."""
        return run_syscall_program(self.descriptors()[name], context)

    def _map(self, name: str) -> int:
        found = self._library.checked("bpf_object__find_map_by_name", self._object, name.encode())
        return int(found)

    def _programs(self) -> dict[str, int]:
        programs = {}
        current = self._library.call("bpf_object__next_program", self._object, None)
        while current:
            programs[self._library.call("bpf_program__name", current).decode()] = int(current)
            current = self._library.call("bpf_object__next_program", self._object, current)
        return programs
