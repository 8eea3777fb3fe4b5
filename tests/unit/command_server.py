"""Runs many commands of tcprism, each in a process with bounds, from one that has all imported."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SECONDS = 120  # generous: the machine may be busy
ROOM = 2 << 30  # bytes of address space beside what imports take

# What a terminal takes for a command, or Unicode for the end of a line or another direction.
RAW = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f-\xff]")


@dataclass(frozen=True)
class Result:
    """How a command ended: its exit status or minus the signal, its output, its memory in bytes."""

    status: int
    output: bytes
    errors: bytes
    memory: int


class Server:
    """Runs commands, one after the other."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self._process, self._folder = process, folder

    def run(self, *arguments: str | Path) -> Result:
        """Run a command to its end."""
        assert self._process.stdin
        assert self._process.stdout
        output, errors = self._folder / "output", self._folder / "errors"
        request = [str(output), str(errors), *map(str, arguments)]
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        status, memory = json.loads(self._process.stdout.readline())
        return Result(status, output.read_bytes(), errors.read_bytes(), memory)


@contextmanager
def server(folder: Path) -> Iterator[Server]:
    """Have a process that runs commands; their output goes through files in a folder."""
    command = [sys.executable, "-m", "tests.unit.command_server"]
    # The plain C locale: what is not ASCII cannot be printed.
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    with process:
        yield Server(process, folder)
        assert process.stdin
        process.stdin.close()


def _serve() -> None:
    import duckdb  # noqa: F401
    import pyarrow.dataset
    import pyarrow.parquet  # noqa: F401

    from tcprism.cli import explain, export, query, replay, top  # noqa: F401

    for line in sys.stdin:
        output, errors, *arguments = json.loads(line)
        pid = os.fork()
        if not pid:
            _become(output, errors, arguments)
        _, status, usage = os.wait4(pid, 0)
        print(json.dumps([os.waitstatus_to_exitcode(status), usage.ru_maxrss << 10]), flush=True)


def _become(output: str, errors: str, arguments: list[str]) -> None:
    from tcprism.cli import main

    for descriptor, path in ((1, output), (2, errors)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    signal.alarm(SECONDS)
    sys.argv = ["tcprism", *arguments]
    status = 99
    try:
        main()
    except SystemExit as error:
        status = int(error.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    _serve()
