"""Loads of programs that talk TLS."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.build import PROGRAMS
from benchmarks.load import LOAD_CPU
from tests.support.netns import Netns
from tests.support.nginx import nginx

ALONE = ("chrt", "-f", "1", "taskset", "-c", str(LOAD_CPU))  # what else runs costs it nothing
_RATE = re.compile(r"Requests per second: +([\d.]+)")
_EVERYWHERE = range(os.cpu_count() or 1)

Files = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Load:
    """What is run, which returns operations a second, and whether on a CPU of its own."""

    run: Callable[[Netns, Files], float]
    alone: bool = True


def python(name: str, seconds: float) -> Load:
    """Return a load of Python's ssl; its rate is turns or writes a second."""
    program = str(PROGRAMS / "tls_load.py")

    def run(netns: Netns, files: Files) -> float:
        return float(netns.run(*ALONE, sys.executable, program, name, str(seconds), *files))

    return Load(run)


def ab(count: int, *options: str, alone: bool = True) -> Load:
    """Return ab's load on nginx; its rate is requests a second."""
    prefix = ALONE if alone else ()
    asked = ("-q", *options, "-c", "50", "-n", str(count), "https://127.0.0.1:8080/hello")

    def run(netns: Netns, _files: Files) -> float:
        found = _RATE.search(netns.run(*prefix, "ab", *asked))
        assert found
        return float(found[1])

    return Load(run, alone)


@contextmanager
def serving(netns: Netns, folder: Path, files: Files) -> Iterator[Callable[[bool], None]]:
    """Run nginx; what is yielded has it run as the loads do, on a CPU of its own or not."""
    with nginx(netns, folder, tls=files):
        parent = (folder / "nginx.pid").read_text().strip()

        def place(alone: bool) -> None:
            for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
                os.sched_setaffinity(int(child), {LOAD_CPU} if alone else _EVERYWHERE)
                policy = os.SCHED_FIFO if alone else os.SCHED_OTHER
                os.sched_setscheduler(int(child), policy, os.sched_param(int(alone)))

        yield place
