"""The demo's processes, seen from the tracer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from tcprism.errors import MachineError
from tcprism.helpers import find_helper

_PATIENCE = 5.0  # seconds
_HOME = str(Path(__file__).resolve().parents[2])  # the folder that this package was imported from

# Isolated (-I), for `-m` looks into the current folder first: what lies there would run as root.
# That also hides a package that PYTHONPATH or a user's own site found, so it is told where it is.
_MAIN = """
import sys
sys.path.append(sys.argv.pop(1))
from tcprism.demo.processes import main
main()
"""


class Traffic:
    """Processes in a network namespace of their own, from `with` to its end.

    They wait for `start()` before they talk. `pid` is one of them, `network` a sentence about their
    network. Raises MachineError.
    """

    def __init__(self, loss: float) -> None:
        python = [sys.executable, "-I", "-c", _MAIN, _HOME]
        self._command = [find_helper("unshare"), "--net", *python, str(loss)]

    def __enter__(self) -> Self:
        pipe = subprocess.PIPE
        # A session of their own: Ctrl-C is for the tracer, which stops them when it has.
        self._process = subprocess.Popen(
            self._command, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
        )
        self.pid = self._process.pid
        try:
            self.network = self._read_network()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _read_network(self) -> str:
        assert self._process.stdout
        if line := self._process.stdout.readline():
            return line.decode().strip()
        _, complaint = self._process.communicate()
        reason = (complaint.decode(errors="replace").splitlines() or ["it ended"])[-1]
        raise MachineError(f"cannot make a network for the demo: {reason}")

    def start(self) -> None:
        """Let the processes talk."""
        assert self._process.stdin
        self._process.stdin.write(b"1")
        self._process.stdin.flush()

    def close(self) -> None:
        """End the processes, and with them the namespace."""
        try:
            self._process.communicate(timeout=_PATIENCE)  # its standard input ends
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
