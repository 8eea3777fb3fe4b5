"""Tracing: the kernel as a source. Hooks fill rings, `read()` makes batches of what is in them."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Self

from tcprism.errors import KernelRefused
from tcprism.events import Batch, Part
from tcprism.events.batch import current_clock_offset_ns
from tcprism.events.facts import Facts
from tcprism.events.ledger import Ledger, Received, close_accounts
from tcprism.events.scopes import without_other_scopes
from tcprism.events.tcp_options import with_options
from tcprism.features import Choice, machine
from tcprism.filters import Criteria
from tcprism.kernel.run_time import RunTime
from tcprism.names.context import ask_helper, cgroup_root, machine_context
from tcprism.probes import Probe
from tcprism.ring import rings
from tcprism.sources.effort import Effort
from tcprism.sources.hooks import Hooks
from tcprism.sources.request import Request
from tcprism.stages import Stage
from tcprism.stages.balance import Balance
from tcprism.stages.redact import Redact
from tcprism.stages.retransmits import Retransmits
from tcprism.stages.uncovered import Uncovered
from tcprism.version import __version__

if TYPE_CHECKING:
    from tcprism.sources.tls_libraries import TlsLibraries

_CLOCK_STEP_NS = 1_000_000
_USUAL_SECONDS = 300e-9  # of an event, in the hook (`make bench ARGS="--only kernel"`)

# Seconds between two looks at the rings. With the time that records get to settle, an event is
# shown within 100 ms.
_BUSY_PAUSE = 0.02
_IDLE_PAUSE = 0.05
_BUSY_LEVEL = 1 / 64  # a fuller ring is looked at again at once


class Tracing:
    """Traces from `with` to its end: `read()` gives what has come, `stop()` takes the hooks off.

    Raises PermissionMissing, LibraryMissing or KernelRefused when entered.
    """

    keeps = "bytes of the room for bursts"

    def __init__(self, request: Request) -> None:
        self.request = request
        self.ended = False
        self.stages: Sequence[Stage] = ()
        if request.redact is not None:
            self.stages = (Redact(request.redact, segments=request.segment_payload > 0),)
        self._received = Received()
        self._latest = 0
        self._clock_offset_ns = current_clock_offset_ns()
        self._measured: RunTime | None = None

    def __enter__(self) -> Self:
        machine.require()
        request = self.request
        sizes = rings.sizes(
            request.kinds,
            request.payload,
            request.ring_size,
            request.options,
            request.segment_payload,
        )
        layouts = rings.layouts(sizes, os.cpu_count() or 1)
        with ExitStack() as stack:
            root = cgroup_root()
            if root >= 0:
                stack.callback(os.close, root)
            self._hooks = stack.enter_context(Hooks(request, layouts, root))
            try:
                self._rings = rings.Rings(layouts, self._hooks.map_fd, request.ordered)
            except OSError as error:
                raise KernelRefused(
                    f"the rings do not fit into memory ({error.strerror}):"
                    " use a smaller --ring-size"
                ) from error
            stack.callback(self._rings.close)
            self._context = machine_context(root)
            if libraries := self._hooks.libraries:
                self.stages = (*self.stages, Uncovered(libraries.uncovered), Balance())
            if request.ordered and "retransmit" in request.kinds:
                self.stages = (*self.stages, Retransmits(self._all_sends))
            self._started = datetime.now(UTC).isoformat()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    @property
    def choices(self) -> list[Choice]:
        """The hooks in use, and why no better ones are."""
        return self._hooks.choices

    @property
    def libraries(self) -> TlsLibraries | None:
        """The TLS libraries whose plaintext is read, if it was asked for."""
        return self._hooks.libraries

    @property
    def facts(self) -> Facts:
        """What is true of this machine and this run."""
        hooks = {choice.probe.family: choice.hook.name for choice in self.choices if choice.hook}
        return Facts(
            kinds=self.request.kinds,
            payload=self.request.payload,
            hooks=hooks,
            host=platform.node(),
            kernel=platform.release(),
            architecture=platform.machine(),
            started=self._started,
            tcprism=__version__,
        )

    def now_ns(self) -> int:
        """Return CLOCK_MONOTONIC."""
        return time.monotonic_ns()

    def read(self) -> Batch:
        """Return the events that are ready, possibly none. Never blocks."""
        self._hooks.attach_late()
        batch = self._batch(self._rings.read())
        self._latest = len(batch)
        return batch

    def pause(self) -> float:
        """Return the seconds until the rings should be read again.

        What is only counted is printed once a second, so that no event is urgent.
        """
        return pause(self._latest if self.request.ordered else 0, self.fill_level())

    def drain(self) -> Batch:
        """After `stop()`: return events that are left; empty when there are no more."""
        return self._batch(self._rings.drain())

    def _batch(self, parts: list[Part]) -> Batch:
        now = current_clock_offset_ns()
        if abs(now - self._clock_offset_ns) > _CLOCK_STEP_NS:  # somebody set the clock
            self._clock_offset_ns = now
        parts = [
            replace(part, rows=without_other_scopes(part.rows), context=self._context)
            for part in parts
        ]
        if self.request.reads_packets:
            parts = [with_options(part, self.request.options) for part in parts]
        batch = Batch(parts, self._clock_offset_ns)
        self._received.add(batch)
        return batch

    def fill_level(self) -> float:
        """Return how full the fullest ring is, 0 to 1."""
        return self._rings.fill_level()

    @property
    def ring_bytes(self) -> int:
        """How much memory the rings take, which the kernel has for them from the start."""
        return self._rings.size

    @property
    def room(self) -> int:
        """How many bytes besides the rings are for bursts, and for what waits for its turn."""
        return self._rings.room

    @room.setter
    def room(self, size: int) -> None:
        self._rings.room = size

    def let_go(self) -> int:
        """From now on, have half the memory for bursts; return how many bytes less that is."""
        return self._rings.let_go()

    def settle(self) -> None:
        """From now on, do without privileges: without new TLS libraries.

        A child looks up names of containers. To be called without threads.
        """
        with suppress(OSError):  # they go by their ids then
            self._stack.callback(ask_helper().close)
        self._hooks.settle()

    def measure_run_time(self) -> None:
        """From now on, measure samples of how long the programs of all hooks run.

        To be called before privileges are given up, without threads.
        """
        with suppress(OSError):  # not known then
            self._measured = RunTime(self._hooks.run_time_ns, self._hooks.program_fds())
            self._stack.callback(self._measured.close)

    def run_time(self) -> float | None:
        """Return how long the programs of all hooks have run, seconds; None: not measured."""
        return self._measured.seconds() if self._measured else None

    def hook_time(self) -> float:
        """Return run_time() or, where it is not measured, what events usually take, seconds."""
        measured = self.run_time()
        if measured is not None:
            return measured
        return _USUAL_SECONDS * float(self._hooks.counters()["seen"].sum())

    def prepare_efforts(self) -> None:
        """Find out which hooks can go off and on again; to be called before the first effort."""
        self._hooks.try_trampolines()

    def take(self, effort: Effort) -> None:
        """From now on, record as much as an effort says. Raises LoadError."""
        self._hooks.take(effort)

    def stop(self) -> None:
        """Take the hooks off; what they recorded can still be read with `drain()`."""
        self._hooks.detach()

    def _all_sends(self) -> bool:
        """Tell whether `send` is traced and all are here."""
        sends = (entry.absent for entry in self.ledger().entries if entry.kind == "send")
        return not next(sends, True)

    def ledger(self) -> Ledger:
        """Return the account of every event so far."""
        ledger = close_accounts(
            self.request.kinds,
            self._hooks.counters(),
            self._hooks.missed(),
            self._received,
            self._hooks.unremembered(),
        )
        return ledger.with_account(self._hooks.unshown())


def survey(probe: Probe) -> Choice:
    """Return the hook that works for a probe here, and why each better one does not.

    Loads and attaches it for a moment, with a filter that no event passes. Raises KernelRefused.
    """
    nobody = Criteria(ports=((1, 1),), local_ports=((2, 2),), remote_ports=((3, 3),))
    others = {"acked": ("send",), "tls_send": ("send", "recv")}  # which they cannot do without
    kinds = (*others.get(probe.kinds[0], ()), *probe.kinds)
    request = Request(kinds=kinds, filter=nobody, ring_size=rings.SMALLEST)
    with Tracing(request) as tracing:
        return next(choice for choice in tracing.choices if choice.probe is probe)


def pause(events: int, fill_level: float) -> float:
    """Return the seconds until the next look at the rings, after one that brought so many events.

    Short looks cost more an event, in the sinks above all; a ring that fills up is not waited for.
    """
    if fill_level > _BUSY_LEVEL:
        return 0.0
    return _BUSY_PAUSE if events else _IDLE_PAUSE
