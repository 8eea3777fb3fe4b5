"""What belongs to `tcprism serve` alone: its options, its own cost, and that it goes on."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Self

from tcprism.cli.options import parse_address, parse_size
from tcprism.errors import OutputError, UsageError
from tcprism.events import Batch
from tcprism.events.facts import Facts
from tcprism.events.ledger import Ledger
from tcprism.events.optional import require
from tcprism.metrics import instruments
from tcprism.metrics.aggregate import Metrics
from tcprism.recording.files import Create
from tcprism.recording.kept import LEAST, Kept
from tcprism.sinks import Sink
from tcprism.sinks.queued import Queued
from tcprism.sources.effort import efforts
from tcprism.sources.least_privilege import User, own
from tcprism.sources.tracing import Tracing
from tcprism.stages import Stage
from tcprism.stages.balance import Balance
from tcprism.stages.budget import Budget
from tcprism.stages.requests import Requests

PROMETHEUS, WEB = "127.0.0.1:9878", "127.0.0.1:9879"
PATIENCE = 30.0  # seconds that a recording may take to end on a busy machine


def parse_prometheus(text: str) -> tuple[str, int] | None:
    """Parse --prometheus: an address, None for "off". Raises UsageError."""
    return None if text == "off" else parse_address(text, "--prometheus", PROMETHEUS)


def parse_keep(text: str) -> int:
    """Parse --keep. Raises UsageError."""
    size = parse_size(text, "keep") or 0
    if size < LEAST:
        raise UsageError(f"--keep: {text!r} is too little for a recording: give 64M or more")
    return size


def private_folder(option: str, text: str, user: User | None) -> Path:
    """Return a folder that is the user's and that nobody else may enter; make it if need be.

    Raises OutputError.
    """
    path = Path(text).absolute()
    uid = user.uid if user else os.geteuid()
    try:
        if not path.exists():
            path.mkdir(mode=0o700)
            own(path, user)
        found = path.stat()
    except OSError as error:
        raise OutputError(f"--{option}: cannot make {text}: {error.strerror}") from error
    if not path.is_dir() or found.st_uid != uid or found.st_mode & 0o077:
        who = user.name if user else "this user"
        raise OutputError(
            f"--{option}: {text} must be a folder that {who} owns and nobody else may enter:"
            " name one that is not there yet, or another --user"
        )
    return path


class Place:
    """Where recordings go: a folder of the user whom the run goes on as, and of nobody else.

    Makes the folder. Raises OutputError, ExtraMissing.
    """

    def __init__(
        self, text: str, keep: int, filters: Mapping[str, tuple[str, ...]], user: User | None
    ) -> None:
        require("pyarrow", "arrow")
        self.path = private_folder("record", text, user)
        self._keep = keep
        self._filters = filters

    def sink(self, create: Create) -> Sink:
        """Return what records, however slow the disk is; `create` makes a file."""
        kept = Kept(self.path, self._keep, self._filters, create)
        return Queued(kept, patience=PATIENCE)


class Bounds(NamedTuple):
    """What it may cost: a share of all CPUs, and bytes of memory; None: the usual bound."""

    overhead: float
    memory: int | None


def parse_overhead(text: str) -> float:
    """Parse --max-overhead: percent of the machine. Return a share. Raises UsageError."""
    try:
        share = float(text.removesuffix("%")) / 100
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise UsageError(f"--max-overhead: {text!r} is not a percentage: write for example 2%")
    return share


def budget(limit: float, tracing: Tracing, stages: Sequence[Stage]) -> Budget:
    """Return the stage that keeps a share of all CPUs; it tells those that read samples."""
    steps = efforts(tracing.request)
    tracing.prepare_efforts()

    def cost() -> float:
        return time.process_time() + tracing.hook_time()

    def take(step: int) -> None:
        tracing.take(steps[step])
        for stage in (*tracing.stages, *stages):
            if isinstance(stage, Balance | Requests):
                stage.sample(steps[step].sampling)

    return Budget(limit, cost, steps, take)


class Own(Sink):
    """Adds tcprism's own cost to the metrics; `run_time` returns that of its BPF programs."""

    def __init__(
        self,
        metrics: Metrics,
        run_time: Callable[[], float | None],
        budget: Budget,
        memory_limit: int,
    ) -> None:
        self._metrics = metrics
        self._run_time = run_time
        self._budget = budget
        self._memory_limit = memory_limit

    def write(self, batch: Batch) -> None:
        """Nothing."""

    def account(self, ledger: Ledger) -> None:
        """Measure."""
        self._metrics.set(instruments.CPU, {(): time.process_time()})
        pages = int(Path("/proc/self/statm").read_bytes().split()[1])
        self._metrics.set(instruments.MEMORY, {(): pages * os.sysconf("SC_PAGE_SIZE")})
        self._metrics.set(instruments.MEMORY_LIMIT, {(): self._memory_limit})
        self._metrics.set(instruments.BUDGET, {(): self._budget.used})
        self._metrics.set(instruments.EFFORT, {(): self._budget.step})
        run_time = self._run_time()
        if run_time is not None:
            self._metrics.set(instruments.BPF, {(): run_time})


class Page(Sink):
    """The page of `tcprism web`, of what is served; inside a `with` block it answers.

    Its sockets are open once it is made. Raises UsageError, MachineError and ExtraMissing.
    """

    keeps = "requests and events that the page shows"

    def __init__(self, text: str, memory: int) -> None:
        # Not before: only this needs the extra `web`.
        from tcprism.cli.web import WithoutPage
        from tcprism.web.server import Server
        from tcprism.web.store import Store
        from tcprism.web.views import Views

        self._store = Store(memory)
        views = Views(self._store, socket.gethostname(), live=True)
        self._server = Server(views, *parse_address(text, "--web", WEB), option="--web")
        self._without = WithoutPage(self._server.port)

    def measures(self, run_time: Callable[[], float | None]) -> None:
        """Have the page show what tcprism costs; `run_time` is as in Tracing."""
        self._store.run_time = run_time

    def __enter__(self) -> Self:
        self._server.start()
        print(self._server.url, flush=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()

    def open(self, facts: Facts) -> None:
        """Begin."""
        self._store.open(facts)

    def write(self, batch: Batch) -> None:
        """Take a batch."""
        self._store.write(self._without(batch))

    @property
    def room(self) -> int:
        """How many bytes what it shows may take."""
        return self._store.room

    @room.setter
    def room(self, size: int) -> None:
        self._store.room = size

    def let_go(self) -> int:
        """Forget about half of what the page shows; return how many that is."""
        return self._store.let_go()

    def account(self, ledger: Ledger) -> None:
        """Take the account of all events."""
        self._store.account(ledger)
