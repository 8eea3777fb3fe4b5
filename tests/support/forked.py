"""tcprism in a fork of a process that has imported it.

Imports are a third of the time in which tcprism starts, and nine tenths of the ten seconds that it
takes in a virtual machine.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from multiprocessing import forkserver
from multiprocessing.connection import Connection

import pytest

MODULES = [
    *("tcprism.cli.program", "tcprism.cli.trace", "tcprism.cli.connections"),
    *("tcprism.cli.retransmits", "tcprism.sources.tracing", "tcprism.sinks.json_lines"),
]

_context = multiprocessing.get_context("forkserver")


def prepare() -> None:
    """Have the modules imported meanwhile, NumPy without threads: only one comes with a fork."""
    _context.set_forkserver_preload(MODULES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENBLAS_NUM_THREADS", "1")
        forkserver.ensure_running()


def _run(arguments: list[str], stderr: Connection) -> None:
    os.dup2(stderr.fileno(), 2)
    stderr.close()
    sys.argv = ["tcprism", *arguments]
    from tcprism.cli import main

    main()


class Forked:
    """A run of tcprism, to be used as a subprocess.Popen."""

    def __init__(self, arguments: list[str]) -> None:
        reader, writer = _context.Pipe(duplex=False)
        with reader, writer:
            self._process = _context.Process(target=_run, args=(arguments, writer), daemon=True)
            self._process.start()
            self.stderr = os.fdopen(os.dup(reader.fileno()), encoding="utf-8")
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
            raise subprocess.TimeoutExpired("tcprism", timeout or 0.0)
        return status

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
