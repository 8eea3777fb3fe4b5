"""Runs a command of tcprism as its users do: arguments, output file, stderr, signals."""

import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from .forked import Forked

TCPRISM = str(Path(sys.executable).with_name("tcprism"))
PATIENCE = 600.0  # seconds; generous for machines that are emulated, less than what vmtest allows

Event = dict[str, Any]
Ledger = dict[str, dict[str, int]]

skipped: list[str] = []  # of runs in which the kernel has skipped a hook: what, and how often


def parse_ledger(stderr: list[str]) -> Ledger:
    """Return the table at the end of stderr as {kind: {column: count}}."""
    start = next((i for i, line in enumerate(stderr) if re.match(r"\s*kind\s+seen", line)), None)
    if start is None:
        raise AssertionError("no ledger on stderr:\n" + "\n".join(stderr))
    columns = stderr[start].split()
    rows = [line.split() for line in stderr[start + 1 :]]
    return {
        row[0]: dict(zip(columns[1:], (int(n.replace(",", "")) for n in row[1:]), strict=True))
        for row in rows
        if len(row) == len(columns) and row[1].isdecimal()
    }


def note_skipped(what: str, missed: dict[str, int]) -> None:
    """Note what a run does not show because the kernel has skipped runs of hooks."""
    if counts := {kind: count for kind, count in missed.items() if count}:
        skipped.append(f"{counts} of {what}")


def read_fdinfo(pid: int) -> str:
    """Return what the kernel tells of all that a process has open."""
    told = ""
    for path in Path(f"/proc/{pid}/fdinfo").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # closed meanwhile
            told += path.read_text()
    return told


def bpf_of(pid: int) -> dict[str, set[int]]:
    """Return the ids of the BPF objects that a process holds."""
    kinds: dict[str, set[int]] = {"prog": set(), "map": set(), "link": set()}
    for line in read_fdinfo(pid).splitlines():
        name, _, value = line.partition(":")
        if name in ("prog_id", "map_id", "link_id"):
            kinds[name.removesuffix("_id")].add(int(value))
    return kinds


def command(*words: str) -> subprocess.Popen[str]:
    """Start a command with a pipe for its stderr."""
    return subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


class Tracer:
    """One run of tcprism; `written` chooses how it writes what it sees.

    It is the command, run by `prefix`, or with `fork` a process that does the same, sooner,
    after what is to be done `before`.
    """

    def __init__(
        self,
        output: Path,
        *arguments: str,
        prefix: tuple[str, ...] = (),
        view: str = "trace",
        written: tuple[str, ...] = ("--format", "json"),
        fork: bool = False,
        before: Callable[[], None] | None = None,
    ) -> None:
        self.output = output
        all_arguments = [view, "-v", *written, "--output", str(output), *arguments]
        self.process = (
            Forked(all_arguments, before) if fork else command(*prefix, TCPRISM, *all_arguments)
        )
        self.stderr: list[str] = []
        self.failure: str | None = None
        self.fdinfo = ""  # what the kernel tells of its programs and maps
        self._attached = threading.Event()
        self._reader = threading.Thread(target=self._read_stderr, daemon=True)
        self._reader.start()

    def _read_stderr(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self.stderr.append(line.rstrip("\n"))
            if line.startswith("tracing"):
                self._attached.set()
        self._attached.set()  # it ended, so nobody need wait

    def await_attached(self) -> None:
        """Wait until the hooks are attached."""
        assert self._attached.wait(PATIENCE), "tcprism did not attach its hooks"
        if not any(line.startswith("tracing") for line in self.stderr):
            self.process.wait(PATIENCE)
            raise AssertionError(
                f"tcprism ended with {self.process.returncode}:\n" + "\n".join(self.stderr)
            )

    def try_to_attach(self) -> None:
        """Wait until the hooks are attached, or note why they are not."""
        try:
            self.await_attached()
        except AssertionError as error:
            self.failure = str(error)
        else:
            self.fdinfo = read_fdinfo(self.process.pid)

    def wait(self) -> int:
        """Wait until tcprism has ended; return its exit status."""
        status = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        assert self.process.stderr
        self.process.stderr.close()
        with suppress(AssertionError):  # it may have ended before there was a ledger
            missed = {kind: row["missed"] for kind, row in self.ledger.items()}
            note_skipped(self.output.name, missed)
        return status

    def interrupt(self) -> None:
        """Ask it to end, if it has not ended."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Send a signal, wait for the end, return the exit status."""
        self.process.send_signal(number)
        return self.wait()

    @property
    def events(self) -> list[Event]:
        """What tcprism has written."""
        assert self.failure is None, self.failure
        if self.process.returncode is not None:
            return self._all_events
        whole, _, _ = self.output.read_bytes().rpartition(b"\n")  # it may be writing a line
        return [json.loads(line) for line in whole.splitlines()]

    @cached_property
    def _all_events(self) -> list[Event]:
        return [json.loads(line) for line in self.output.read_text().splitlines()]

    @property
    def ledger(self) -> Ledger:
        """What tcprism accounts for in the end."""
        assert self.failure is None, self.failure
        return parse_ledger(self.stderr)

    def close(self) -> None:
        """End tcprism whatever happened."""
        if self.process.poll() is None:
            self.process.kill()
            self.wait()


@contextmanager
def tracing_all(
    runs: dict[Path, list[str]], view: str = "trace", before: Callable[[], None] | None = None
) -> Iterator[list[Tracer]]:
    """Trace with several processes at once, each with an output and arguments of its own.

    One that fails spoils nothing for the others: it raises when its events are asked for.
    """
    with ExitStack() as stack:
        tracers = [
            Tracer(output, *arguments, view=view, fork=True, before=before)
            for output, arguments in runs.items()
        ]
        for tracer in tracers:
            stack.callback(tracer.close)
        for tracer in tracers:
            tracer.try_to_attach()
        yield tracers
        for tracer in tracers:
            tracer.interrupt()
        for tracer in tracers:
            status = tracer.wait()
            if status and not tracer.failure:
                tracer.failure = f"exit status {status}\n" + "\n".join(tracer.stderr)


@contextmanager
def tracing(
    output: Path, *arguments: str, view: str = "trace", before: Callable[[], None] | None = None
) -> Iterator[Tracer]:
    """Trace while the body runs, from attached hooks to a stop that must end well."""
    with tracing_all({output: list(arguments)}, view, before) as (tracer,):
        assert tracer.failure is None, tracer.failure
        yield tracer
    assert tracer.failure is None, tracer.failure
