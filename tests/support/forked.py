"""tcprism, and small Python programs, in forks of a process that has imported what they need.

Imports are a third of the time in which tcprism starts, and nine tenths of the ten seconds that it
takes in a virtual machine, where Python alone takes two.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import forkserver
from multiprocessing.connection import Connection

from .netns import Netns

# Not pytest: a fork that has to import it first spends more on that than on its work.
MODULES = [
    __name__,
    *("tcprism.cli.program", "tcprism.cli.trace", "tcprism.cli.connections"),
    *("tcprism.cli.retransmits", "tcprism.sources.tracing", "tcprism.sinks.json_lines"),
]
THREADS = "OPENBLAS_NUM_THREADS"

_context = multiprocessing.get_context("forkserver")


def prepare() -> None:
    """Have the modules imported meanwhile, NumPy without threads: only one comes with a fork."""
    _context.set_forkserver_preload(MODULES)
    before = os.environ.get(THREADS)
    os.environ[THREADS] = "1"
    try:
        forkserver.ensure_running()
    finally:
        del os.environ[THREADS]
        if before is not None:
            os.environ[THREADS] = before


class Fork:
    """A process that runs a function, to be used as a subprocess.Popen."""

    def __init__(self, function: Callable[..., None], *arguments: object) -> None:
        self._process = _context.Process(target=function, args=arguments, daemon=True)
        self._process.start()
        assert self._process.pid
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """Return the exit status, if it has ended."""
        return self._process.exitcode

    returncode = property(poll)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; raises subprocess.TimeoutExpired after so many seconds."""
        self._process.join(timeout)
        status = self.poll()
        if status is None:
            raise subprocess.TimeoutExpired("a fork", timeout or 0.0)
        return status

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it ends just now
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()


def look_for_tls_in_processes_alone(
    replace: Callable[[object, str, object], None] = setattr,
) -> None:
    """Spare machines the libraries that no process has: the linker knows hundreds, each a file."""
    from tcprism.tls import libraries

    replace(libraries, "linked_libraries", list)


def _run(arguments: list[str], stderr: Connection, before: Callable[[], None] | None) -> None:
    os.dup2(stderr.fileno(), 2)
    stderr.close()
    if before:
        before()
    sys.argv = ["tcprism", *arguments]
    from tcprism.cli import main

    main()


class Forked(Fork):
    """A run of tcprism; `before` is done in the process before."""

    def __init__(self, arguments: list[str], before: Callable[[], None] | None = None) -> None:
        reader, writer = _context.Pipe(duplex=False)
        with reader, writer:
            super().__init__(_run, arguments, writer, before)
            self.stderr = os.fdopen(os.dup(reader.fileno()), encoding="utf-8")


def _interpret(netns: Netns, source: str, arguments: tuple[str, ...], *pipes: Connection) -> None:
    for number, pipe in enumerate(pipes):
        os.dup2(pipe.fileno(), number)
        pipe.close()
    sys.stdin = os.fdopen(0, closefd=False)
    sys.argv = ["-c", *arguments]
    netns.enter()
    exec(source, {"__name__": "__main__"})


class Script(Fork):
    """A Python program in a network namespace, as `python -c SOURCE ARGUMENTS` would run it."""

    def __init__(self, netns: Netns, source: str, *arguments: str) -> None:
        to_read, self_writes = _context.Pipe(duplex=False)
        self_reads, to_write = _context.Pipe(duplex=False)
        with to_read, to_write, self_writes, self_reads:
            super().__init__(_interpret, netns, source, arguments, to_read, to_write)
            self.stdin = os.fdopen(os.dup(self_writes.fileno()), "w", encoding="utf-8")
            self.stdout = os.fdopen(os.dup(self_reads.fileno()), encoding="utf-8")

    def close(self) -> None:
        """End it, whatever it does, and close its pipes."""
        self.kill()
        self.wait()
        self.stdin.close()
        self.stdout.close()
