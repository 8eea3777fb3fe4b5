"""Hooks: the BPF programs of one request, from choosing each hook to detaching it."""

from __future__ import annotations

import errno
import os
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

from tcprism import features
from tcprism.errors import KernelRefused
from tcprism.events.ledger import Account
from tcprism.features.kernel import has_task_storage
from tcprism.features.uprobe_pid import sees_all_threads
from tcprism.filters import descendants, pid_rows
from tcprism.kernel.object import BpfObject, LoadError
from tcprism.probes import Program, message
from tcprism.ring import rings
from tcprism.ring.buffer import Layout
from tcprism.sources import plan
from tcprism.sources.effort import Effort
from tcprism.sources.host_pids import host_pids, on_host
from tcprism.sources.request import Request

if TYPE_CHECKING:
    from tcprism.sources.tls_libraries import TlsLibraries
    from tcprism.tls.libraries import Library

_PIDS_WITH_UPROBES = 4  # each has links of its own

_MPTCP = (
    "MPTCP sockets were used, and what they send and receive is not shown: --hooks tracepoint can,"
    " from Linux 6.3 on"
)


class _LeftOut(NamedTuple):
    """Functions of an open file that get their hooks when a program has set a flag."""

    flag: str
    descriptor: int
    functions: dict[str, int]


class Hooks:
    """Chooses, loads and attaches when entered; `choices` says which hooks, and why no better ones.

    `root` is a descriptor of the cgroup v2 root, -1 where there is none. Raises KernelRefused when
    entered.
    """

    def __init__(self, request: Request, layouts: dict[str, Layout], root: int) -> None:
        self._request = request
        self._layouts = layouts
        self._root = root
        self._late: list[Program] = []
        self._left_out: list[_LeftOut] = []
        self._resting: list[Program] = []
        self._refused: list[str] = []
        self._trampolines_go_back_on = False
        self._since_ns = 0
        self.libraries: TlsLibraries | None = None

    def __enter__(self) -> Self:
        probes = plan.probes_for(self._request.kinds, self._request.options)
        forced = plan.forced(self._request, probes)
        self.choices, self._object = features.choose(probes, forced, self._load)
        self.map_fd = self._object.map_fd
        self.counters = self._object.counters
        self.run_time_ns = self._object.run_time_ns
        self.program_fds = self._object.program_fds
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close_libraries()
        self._object.close()

    def _close_libraries(self) -> None:
        if self.libraries:
            self.libraries.close()
        while self._left_out:
            os.close(self._left_out.pop().descriptor)

    def _load(self, choices: Sequence[features.Choice]) -> BpfObject:
        self._programs = plan.programs_for(self._request, choices)
        self._multi = any(c.hook and c.hook.mechanism == "uprobe_multi" for c in choices)
        bpf = BpfObject()
        try:
            self._prepare(bpf)
            self._attach(bpf)
        except BaseException:
            self._close_libraries()
            self.libraries = None
            bpf.close()
            raise
        return bpf

    def _prepare(self, bpf: BpfObject) -> None:
        """Configure and load, with the filter in its maps before any hook is on."""
        # A kprobe cannot use the storage of the task that it interrupts.
        storage = has_task_storage() and all(p.attach != "kprobe" for p in self._programs)
        bpf.select(program.name for program in self._programs)
        if self._multi:
            bpf.for_uprobe_multi(p.name for p in self._programs if p.symbols)
        entries = rings.entries(self._layouts) | plan.table_sizes(self._request, storage)
        bpf.configure(plan.configuration(self._request, storage, self._layouts), entries)
        if not has_task_storage():
            bpf.without_storage()
        bpf.load()
        rings.lay_out(self._layouts, bpf.map_fd)
        for name, rows in on_host(self._request.filter).entries().items():
            for key, value in rows.items():
                bpf.put(name, key, value)
        for index, path in enumerate(self._request.filter.cgroups):
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                bpf.put("cgroups", index.to_bytes(4, "little"), descriptor.to_bytes(4, "little"))
            finally:
                os.close(descriptor)

    def _attach(self, bpf: BpfObject) -> None:
        self._late = [program for program in self._programs if program.late]
        now = [program for program in self._programs if not program.late]
        self._put_on(bpf, (program for program in now if program.order <= 0))
        self._follow_descendants(bpf)
        self._put_on(bpf, (program for program in now if program.order > 0))
        if plan.traces_tls(self._request):
            self._attach_to_libraries(bpf)
        self._attach_late(bpf)

    def _attach_to_libraries(self, bpf: BpfObject) -> None:
        from tcprism.sources.tls_libraries import TlsLibraries  # not before: most runs do without

        chosen = self._request.filter
        self.libraries = TlsLibraries(partial(self._attach_to_library, bpf), chosen)
        self.libraries.look_at_hellos(bpf.map_fd("tls_hellos"))

    def _attach_to_library(self, bpf: BpfObject, library: Library) -> bool:
        from tcprism.tls.cheap import cheap_functions

        attached = False
        if library.flavor == "openssl":
            functions = cheap_functions(library.path, library.functions)
            self._leave_out(library.path, functions)
            library = replace(library, functions=functions)
        for program in self._programs:
            if places := library.places(program.symbols, program.returns):
                attached = True
                self._attach_to_places(bpf, program, library.path, places)
        return attached

    def _attach_to_places(
        self, bpf: BpfObject, program: Program, path: str, places: Sequence[int]
    ) -> None:
        returns = program.attach == "uretprobe"
        for pid in self._pids_with_uprobes() or (None,):
            try:
                bpf.attach_to_functions(
                    program.name, path, places, returns=returns, multi=self._multi, pid=pid
                )
            except LoadError as error:
                if pid is None or error.errno != errno.ESRCH:  # it has ended
                    raise

    def _pids_with_uprobes(self) -> tuple[int, ...]:
        """Return the processes that alone are to have uprobes; none: all that there will be.

        Others are spared the traps where a filter would turn them away.
        """
        chosen = self._request.filter
        if chosen.follow or len(chosen.pids) > _PIDS_WITH_UPROBES:
            return ()
        return () if self._multi and not sees_all_threads() else chosen.pids

    def _leave_out(self, path: str, functions: dict[str, int]) -> None:
        """Take out what would cost each record of all sessions, until somebody needs it.

        What a program keeps in its own memory, as Node does where it shares the libcrypto of
        others, is seen at BIO_write() alone. A program with an OpenSSL of its own has that probed.
        """
        flag = "tls_sent_unseen" if "mem_write" in functions else "tls_in_memory"
        names = ("BIO_write", "BIO_read") if "mem_write" in functions else ("BIO_read",)
        if later := {name: functions.pop(name) for name in names if name in functions}:
            self._left_out.append(_LeftOut(flag, _reopen(path), later))

    def _put_on(self, bpf: BpfObject, programs: Iterable[Program]) -> None:
        for program in programs:
            if program.symbols:
                continue
            if program.attach == "iterator":
                bpf.iterate(program.name)
            elif program.attach == "cgroup":
                if self._root < 0:
                    raise KernelRefused(
                        f"{program.kinds[0]} needs cgroup v2, which this kernel does not have"
                    )
                bpf.attach_to_cgroup(program.name, self._root)
            else:
                bpf.attach(program.name)

    def _follow_descendants(self, bpf: BpfObject) -> None:
        """Choose the children that are there already: after the hook that sees new ones is on."""
        chosen = self._request.filter
        family = set(chosen.pids)
        while chosen.follow and (new := descendants(family) - family):
            family |= new  # looked for again: writing a row may undo what the hook wrote meanwhile
            for key, value in pid_rows(host_pids(family).values()).items():
                bpf.put("pids", key, value)

    def attach_late(self) -> None:
        """Attach what would cost each send, as soon as somebody needs it, and to new libraries."""
        if self.libraries:
            self.libraries.look()
            self._attach_left_out(self._object)
        self._attach_late(self._object)

    def _attach_left_out(self, bpf: BpfObject) -> None:
        """Hook BIO_write() and BIO_read() where a program has shown that it needs it."""
        for each in [each for each in self._left_out if bpf.is_set(each.flag)]:
            self._left_out.remove(each)
            path = f"/proc/self/fd/{each.descriptor}"
            try:
                with suppress(LoadError):  # then no connection is shown for what it would tell
                    for program in self._programs:
                        if places := [
                            at for name, at in each.functions.items() if name in program.symbols
                        ]:
                            self._attach_to_places(bpf, program, path, places)
            finally:
                os.close(each.descriptor)

    def _attach_late(self, bpf: BpfObject) -> None:
        # A command that is followed may: its first bytes come before we could look again.
        if self._late and (self._request.filter.follow or bpf.is_set("io_uring_seen")):
            with suppress(LoadError):  # an event says itself that its payload could not be seen
                self._put_on(bpf, self._late)
            self._late = []

    def try_trampolines(self) -> None:
        """Find out whether fentry programs can be attached a second time (5.13): else they stay.

        To be called while there are privileges.
        """
        if program := next(filter(_has_trampoline, self._programs), None):
            with suppress(LoadError), BpfObject() as bpf:
                bpf.select((program.name,))
                bpf.configure({}, {})
                bpf.load()
                bpf.attach(program.name)
                bpf.detach_programs((program.name,))
                bpf.attach(program.name)
                self._trampolines_go_back_on = True

    def take(self, effort: Effort) -> None:
        """From now on, record as much as an effort says."""
        rest = [p for p in self._programs if self._may_rest(p, effort)]
        woken = [p for p in self._resting if p not in rest]
        self._object.detach_programs(p.name for p in rest if p not in self._resting)
        self._resting = rest
        if woken:
            self._since_ns = time.monotonic_ns()
        self._object.set_effort(
            since_ns=self._since_ns,
            payload_shift=effort.payload_shift,
            message_sampling=effort.message_sampling,
            segment_sampling=effort.segment_sampling,
        )
        self._refused = []
        for program in woken:
            try:
                self._put_on(self._object, [program])
            except LoadError:  # tried again with the next effort
                self._resting.append(program)
                self._refused.append(program.name)

    def _may_rest(self, program: Program, effort: Effort) -> bool:
        """Tell whether a program is to be off that can be put on again without privileges.

        What ends with its connection goes on, for no storage would be freed.
        """
        resting = program.kinds and set(program.kinds) <= set(effort.resting)
        stays = program.late or program.name == "tracepoint_acked_at_end"
        if _has_trampoline(program) and not self._trampolines_go_back_on:
            return False
        return bool(resting) and program.attach == "btf" and not stays

    def settle(self) -> None:
        """Do without what privileges are needed for."""
        if self.libraries:
            self.libraries.settle()

    def unremembered(self) -> int:
        """Return how many sockets there was no room to remember."""
        return self._object.count("unremembered")

    def unshown(self) -> Account:
        """Say what happened that the hooks in use cannot show."""
        hooks = (choice.hook for choice in self.choices if choice.probe is message.PROBE)
        remarks: tuple[str, ...] = ()
        if self._refused:
            remarks = (f"hooks that were off cannot go on again: {', '.join(self._refused)}",)
        blind = any(hook and hook.mechanism != "tracepoint" for hook in hooks)
        wanted = {*self._request.kinds} & {*message.PROBE.kinds}
        if blind and wanted and self._object.count("mptcp_connections"):
            remarks = (*remarks, _MPTCP)
        return Account(remarks=remarks)

    def missed(self) -> Counter[str]:
        """Return, per kind, the runs that the kernel skipped as the program was already running."""
        runs = self._object.missed()
        return Counter(
            {
                kind: sum(runs[p.name] for p in self._programs if kind in p.kinds)
                for kind in {kind for program in self._programs for kind in program.kinds}
            }
        )

    def detach(self) -> None:
        """Take every hook off; what they recorded can still be read."""
        self._late = []
        if self.libraries:
            self.libraries.close()
        self._object.detach()


def _has_trampoline(program: Program) -> bool:
    return program.name.startswith(("fentry_", "fexit_"))


def _reopen(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
