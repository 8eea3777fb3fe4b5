"""The way of the data on one screen: hooks -> rings -> batches -> whoever asked for them."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Self

from tcprism import features
from tcprism.errors import KernelRefused, UsageError
from tcprism.events import KINDS, Batch, Part
from tcprism.events._wire import PAYLOAD_MAX
from tcprism.events.ledger import Ledger, Received, close_accounts
from tcprism.features import machine
from tcprism.features.kernel import has_task_storage, packets_have_process
from tcprism.filters import Criteria, descendants, pid_rows
from tcprism.kernel.object import BpfObject, LoadError
from tcprism.kernel.types import kernel_types
from tcprism.names.context import cgroup_root, machine_context
from tcprism.probes import Probe, connection, loss, message, segment
from tcprism.ring import rings
from tcprism.stages import Stage, accounts, through
from tcprism.stages.retransmits import Retransmits

PROBES = (
    message.PROBE,
    segment.PROBE,
    loss.RETRANSMIT,
    loss.UNDO,
    loss.DROP,
    segment.DELIVERY,
    connection.CONNECTION,
    connection.RESET,
)
DEFAULT_KINDS = ("send", "recv", "retransmit", "drop", "connect", "accept", "close", "reset")
DEFAULT_PAYLOAD = 64
DEFAULT_MAX_CONNECTIONS = 65_536
_FOR_IO_URING = "tracepoint_send_buffer"
_CLOCK_STEP_NS = 1_000_000

# Seconds between two looks at the rings. With the time that records get to settle, an event is
# shown within 100 ms.
_BUSY_PAUSE = 0.02
_IDLE_PAUSE = 0.05
_BUSY_LEVEL = 1 / 64  # a fuller ring is looked at again at once


@dataclass(frozen=True, slots=True)
class Request:
    """What to trace: kinds of events, filter, payload bytes a message, bytes a busy ring.

    `mechanism` forces "fentry", "kprobe" or "tracepoint". `ordered=False` gives up the time order.
    `max_connections` bounds what is remembered where the kernel has no storage at the socket.
    `stages` are the user's own, after ours.
    Raises UsageError when the kinds make no sense together, or a size is out of its bounds.
    """

    kinds: tuple[str, ...] = DEFAULT_KINDS
    filter: Criteria = field(default_factory=Criteria)
    payload: int = DEFAULT_PAYLOAD
    ring_size: int = rings.DEFAULT_SIZE
    mechanism: str | None = None
    include_self: bool = False
    ordered: bool = True
    max_connections: int = DEFAULT_MAX_CONNECTIONS
    stages: tuple[Stage, ...] = ()

    def __post_init__(self) -> None:
        if "acked" in self.kinds and "send" not in self.kinds:
            raise UsageError("--kinds: acked tells what became of each send: add send to the kinds")
        _check_bounds("payload", self.payload, 0, PAYLOAD_MAX)
        _check_bounds("ring size", self.ring_size, rings.SMALLEST, rings.LARGEST)


def _check_bounds(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise UsageError(f"{name}: {value} is not between {least} and {most} bytes")


# How a connection ended is known from the resets, too.
_NEEDS = {
    "acked": (segment.PROBE,),
    "close": (connection.RESET,),
    "reset": (connection.CONNECTION,),
}
_OWNED = {"acked", "transmit", "probe", "retransmit", "undo", "drop"}


def owners_from(kinds: Sequence[str]) -> Probe | None:
    """Return the probe that sees who uses a socket, beside its connections; None: nobody asks.

    A process is at work at its messages, and at the segments that leave meanwhile: a flood of
    messages has few of those.
    """
    if set(kinds) & set(message.PROBE.kinds):
        return message.PROBE if set(kinds) - set(message.PROBE.kinds) else None
    if "transmit" in kinds and packets_have_process():
        return segment.PROBE
    return message.PROBE if set(kinds) & _OWNED else None


def probes_for(kinds: Sequence[str]) -> list[Probe]:
    """Return the probes to load: those of the kinds, and those that the kinds depend on."""
    needed = {probe.family for kind in kinds for probe in _NEEDS.get(kind, ())}
    if watch := owners_from(kinds):
        needed |= {watch.family}
    if set(kinds) & _OWNED:
        needed |= {connection.CONNECTION.family}
    return [probe for probe in PROBES if set(probe.kinds) & set(kinds) or probe.family in needed]


class Tracing:
    """Traces from `with` to its end: `read()` gives what has come, `stop()` takes the hooks off.

    Raises PermissionMissing, LibraryMissing or KernelRefused when entered.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.choices: list[features.Choice] = []
        self._received = Received()
        self._clock_offset_ns = _clock_offset_ns()

    def __enter__(self) -> Self:
        machine.require()
        sizes = rings.sizes(self.request.kinds, self.request.payload, self.request.ring_size)
        self._layouts = rings.layouts(sizes, os.cpu_count() or 1)
        probes = probes_for(self.request.kinds)
        self._cgroup_root = cgroup_root()
        self.choices, self._object = features.choose(probes, self._forced(probes), self._load)
        self._context = machine_context(self._cgroup_root)
        self._stages = self._stages_for(self.request)
        return self

    def _forced(self, probes: Sequence[Probe]) -> dict[str, str]:
        """Return the mechanism to force; not on a probe that only knows the owners for others."""
        if self.request.mechanism is None:
            return {}
        kinds = set(self.request.kinds)
        return {p.family: self.request.mechanism for p in probes if kinds & set(p.kinds)}

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._rings.close()
        self._object.close()
        if self._cgroup_root >= 0:
            os.close(self._cgroup_root)

    def _load(self, choices: Sequence[features.Choice]) -> BpfObject:
        bpf = BpfObject()
        try:
            self._open(bpf, choices)
        except BaseException:
            bpf.close()
            raise
        return bpf

    def _open(self, bpf: BpfObject, choices: Sequence[features.Choice]) -> None:
        programs = [
            name
            for choice in choices
            if choice.hook
            for name in features.programs_of(choice.hook, kernel_types())
        ]
        programs = list(dict.fromkeys(programs + self._follow_programs()))
        programs.sort(key="tracepoint_state".__eq__)  # last: it forgets sockets that are closed
        iterators = ["iterate_tasks"] if "tracepoint_recv" in programs else []
        iterators += ["iterate_owners"] if self._tracks_owners() else []
        probed = any(name.startswith(("kprobe", "kretprobe")) for name in programs)
        storage = has_task_storage() and not probed
        bpf.select(programs + iterators)
        bpf.configure(self._config(storage), rings.entries(self._layouts) | self._tables(storage))
        if not has_task_storage():
            bpf.without_storage()
        bpf.load()
        self._fill_filters(bpf)
        try:
            self._rings = rings.Rings(self._layouts, bpf.map_fd, self.request.ordered)
        except OSError as error:
            raise KernelRefused(
                f"the rings do not fit into memory ({error.strerror}): use a smaller --ring-size"
            ) from error
        self._attach_all(bpf, programs, iterators)

    def _attach_all(self, bpf: BpfObject, programs: list[str], iterators: list[str]) -> None:
        if "iterate_tasks" in iterators:  # the hooks need what it finds
            bpf.iterate("iterate_tasks")
        self._late = [name for name in programs if name == _FOR_IO_URING]
        self._attach(bpf, [name for name in programs if name not in self._late])
        self._follow_descendants(bpf)
        for name in iterators:  # after the hooks are on, so that no socket or ring is in neither
            bpf.iterate(name)
        self._attach_late(bpf)

    def _follow_programs(self) -> list[str]:
        return ["tracepoint_fork", "tracepoint_exit"] if self.request.filter.follow else []

    def _tracks_owners(self) -> bool:
        return bool(set(self.request.kinds) - {"send", "recv"})

    def _tables(self, storage: bool) -> dict[str, int]:
        """Return the sizes of the tables by socket address, which stand in for storage."""
        room = 1 if storage else self.request.max_connections
        return {
            "notes_by_address": room,
            "deliveries_by_address": room if "acked" in self.request.kinds else 1,
        }

    def _config(self, storage: bool) -> dict[str, object]:
        return {
            "kinds": sum(1 << KINDS.index(kind) for kind in self.request.kinds),
            "self_pid": 0 if self.request.include_self else os.getpid(),
            "payload_limit": self.request.payload,
            "owners_from_messages": owners_from(self.request.kinds) is message.PROBE,
            "owners_from_segments": owners_from(self.request.kinds) is segment.PROBE,
            "local_storage": storage,
            "can_cast": bool(kernel_types().function_id("bpf_rdonly_cast")),
            "recvmsg_arguments": kernel_types().parameters("tcp_recvmsg"),
            "accept_arguments": kernel_types().parameters("inet_csk_accept"),
            "tick_ns": machine.tick_ns(),
            "last_lane": max(layout.lanes for layout in self._layouts.values()) - 1,
            **self.request.filter.switches(),
        }

    def _fill_filters(self, bpf: BpfObject) -> None:
        for name, entries in self.request.filter.entries().items():
            for key, value in entries.items():
                bpf.put(name, key, value)
        for index, path in enumerate(self.request.filter.cgroups):
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                bpf.put("cgroups", index.to_bytes(4, "little"), descriptor.to_bytes(4, "little"))
            finally:
                os.close(descriptor)

    def _follow_descendants(self, bpf: BpfObject) -> None:
        """Choose the children that are there already: after the hook that sees new ones is on."""
        family = set(self.request.filter.pids)
        while self.request.filter.follow and (new := descendants(family) - family):
            family |= new  # looked for again: writing a row may undo what the hook wrote meanwhile
            for key, value in pid_rows(family).items():
                bpf.put("pids", key, value)

    def _attach(self, bpf: BpfObject, programs: list[str]) -> None:
        if self._cgroup_root < 0 and "cgroup_transmit" in programs:
            raise KernelRefused("transmit needs cgroup v2, which this kernel does not have")
        bpf.attach(programs, self._cgroup_root)

    def _attach_late(self, bpf: BpfObject) -> None:
        """Put on the hook that would cost each send, as soon as somebody needs it.

        A command that is followed may: its first bytes come before we could look again.
        """
        if self._late and (self.request.filter.follow or bpf.io_uring_seen()):
            with suppress(LoadError):  # an event says itself that its payload could not be seen
                self._attach(bpf, self._late)
            self._late = []

    def read(self) -> Batch:
        """Return the events that are ready, possibly none. Never blocks."""
        self._attach_late(self._object)
        return self._batch(self._rings.read())

    def drain(self) -> Batch:
        """After `stop()`: return events that are left; empty when there are no more."""
        return self._batch(self._rings.drain())

    def _batch(self, parts: list[Part]) -> Batch:
        now = _clock_offset_ns()
        if abs(now - self._clock_offset_ns) > _CLOCK_STEP_NS:  # somebody set the clock
            self._clock_offset_ns = now
        batch = Batch([replace(p, context=self._context) for p in parts], self._clock_offset_ns)
        self._received.add(batch)
        return through(self._stages, batch)

    def fill_level(self) -> float:
        """Return how full the fullest ring is, 0 to 1."""
        return self._rings.fill_level()

    def stop(self) -> None:
        """Take the hooks off; what they recorded can still be read with `drain()`."""
        self._late = []
        self._object.detach()

    def _stages_for(self, request: Request) -> tuple[Stage, ...]:
        """Return the stages that events go through; events that are only counted need none."""
        explains = request.ordered and "retransmit" in request.kinds
        return (*((Retransmits(self._all_sends),) if explains else ()), *request.stages)

    def _all_sends(self) -> bool:
        """Tell whether `send` is traced and none was lost."""
        sends = (entry.lost for entry in self.ledger().entries if entry.kind == "send")
        return not next(sends, True)

    def ledger(self) -> Ledger:
        """Return the account of every event so far."""
        return close_accounts(
            self.request.kinds,
            self._object.counters(),
            self._object.missed(),
            self._received,
            self._object.unremembered(),
            accounts(self._stages),
        )


def survey(probe: Probe) -> features.Choice:
    """Return the hook that works for a probe here, and why each better one does not.

    Loads and attaches it for a moment, with a filter that no event passes. Raises KernelRefused.
    """
    nobody = Criteria(ports=((1, 1),), local_ports=((2, 2),), remote_ports=((3, 3),))
    kinds = ("send", *probe.kinds) if "acked" in probe.kinds else probe.kinds
    request = Request(kinds=kinds, filter=nobody, ring_size=rings.SMALLEST)
    with Tracing(request) as monitor:
        return next(choice for choice in monitor.choices if choice.probe is probe)


def pause(events: int, fill_level: float) -> float:
    """Return the seconds until the next look at the rings, after one that brought so many events.

    Short looks cost more an event, in the sinks above all; a ring that fills up is not waited for.
    """
    if fill_level > _BUSY_LEVEL:
        return 0.0
    return _BUSY_PAUSE if events else _IDLE_PAUSE


def _clock_offset_ns() -> int:
    return time.time_ns() - time.monotonic_ns()
