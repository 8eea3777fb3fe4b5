"""`-- COMMAND`: started before the hooks are attached, released once they are."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import sys
from pathlib import Path
from typing import NoReturn

from tcprism.errors import UsageError
from tcprism.interrupts import asked, unnoted

_PATIENCE = 0.5  # seconds


class Command:
    """A program that waits for `release()` before its first instruction; `pid` is its process.

    It is the id that /proc has: fork() returns another where /proc is of an outer pid namespace.
    """

    def __init__(self, arguments: tuple[str, ...]) -> None:
        from shutil import which  # brings compression with it: not at the start of every trace

        if not which(arguments[0]):
            there = os.path.exists(arguments[0]) and os.sep in arguments[0]
            reason = "it is not an executable file" if there else "there is no such program"
            raise UsageError(f"cannot run {arguments[0]!r}: {reason}")
        self._arguments = arguments
        gate_out, self._gate = os.pipe()
        self._failure, failure_in = os.pipe()
        self._child = os.fork()
        if not self._child:
            os.close(self._gate)
            os.close(self._failure)
            _become(arguments, gate_out, failure_in)
        os.close(gate_out)
        os.close(failure_in)
        self.pidfd = os.pidfd_open(self._child)
        self.pid = _pid_in_proc(self.pidfd)
        self._status: int | None = None

    def release(self) -> None:
        """Let the program run. Raises UsageError when there is no such program."""
        os.write(self._gate, b"1")
        self._close_gate()
        code = os.read(self._failure, 4)
        os.close(self._failure)
        if code:
            self.status()
            reason = os.strerror(int.from_bytes(code, "little"))
            raise UsageError(f"cannot run {self._arguments[0]!r}: {reason}")

    def _close_gate(self) -> None:
        """Without a byte through the gate, the program never runs."""
        if self._gate >= 0:
            os.close(self._gate)
        self._gate = -1

    def end(self) -> int:
        """Ask a program that still runs to end, and return its status; 0 when it does not obey.

        One that a signal to us kept from its start has the status that the signal would give it.
        """
        if self._gate >= 0 and asked():
            self._status = 128 + asked()
        self._close_gate()
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGTERM)
        if not select.select([self.pidfd], [], [], _PATIENCE)[0]:
            print(f"tcprism: {self._arguments[0]} goes on, as {self.pid}", file=sys.stderr)
            return 0
        return self.status()

    def status(self) -> int:
        """Wait for the end and return the status as a shell would: 128 + signal when killed."""
        if self._status is None:
            code = os.waitstatus_to_exitcode(os.waitpid(self._child, 0)[1])
            self._status = code if code >= 0 else 128 - code
        return self._status


def _pid_in_proc(pidfd: int) -> int:
    info = Path(f"/proc/self/fdinfo/{pidfd}").read_bytes()
    return int(re.findall(rb"^Pid:\s+([0-9]+)$", info, re.MULTILINE)[0])


def _become(arguments: tuple[str, ...], gate: int, failure: int) -> NoReturn:
    """In the child: wait, then be the program; end quietly when the parent gave up."""
    try:
        unnoted()
        if os.read(gate, 1):
            for number in (
                signal.SIGPIPE,
                signal.SIGXFSZ,
            ):  # Python ignores them, and that is inherited
                signal.signal(number, signal.SIG_DFL)
            os.execvp(arguments[0], arguments)
    except OSError as error:
        os.write(failure, (error.errno or 1).to_bytes(4, "little"))
    finally:
        os._exit(127)
