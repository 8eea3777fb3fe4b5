"""What ftrace sees of tracepoints where BPF programs are not run.

A kernel may keep BPF programs out of the context of a process that it protects. One such 6.18 has
sched_switch tell programs of that process as the next, never as the previous one; ftrace is told of
both. What a softirq does on top of such a process is in no program's sight then.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

TRACEFS = Path("/sys/kernel/tracing")


def _protected() -> Iterator[str]:
    """Yield the threads of processes of which root is refused what it may read of all others."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            (process / "ns/net").readlink()
        except PermissionError:
            yield from (thread.name for thread in process.glob("task/*"))
        except OSError:
            pass  # it has ended


class Unseen:
    """Collects the events of tracepoints on top of protected processes, from now to `close`.

    Most machines have no such process: then there are none.
    """

    def __init__(self, name: str, *tracepoints: str) -> None:
        self._switches: list[Path] = []
        threads = " || ".join(f"common_pid == {thread}" for thread in _protected())
        if not threads:
            return
        if not (TRACEFS / "instances").exists():
            subprocess.run(["mount", "-t", "tracefs", "tracefs", TRACEFS], check=True)
        self._instance = TRACEFS / "instances" / f"tcprism-test-{name}-{os.getpid()}"
        self._instance.mkdir()
        for tracepoint in tracepoints:
            (event,) = self._instance.glob(f"events/*/{tracepoint}")
            (event / "filter").write_text(threads)
            (event / "enable").write_text("1")
            self._switches.append(event / "enable")

    def lines(self) -> list[str]:
        """Return the events so far, as ftrace tells them."""
        if not self._switches:
            return []
        text = (self._instance / "trace").read_text(errors="replace")
        return [line for line in text.splitlines() if not line.startswith("#")]

    def close(self) -> None:
        """Collect no more."""
        if self._switches:
            for switch in self._switches:
                switch.write_text("0")
            self._instance.rmdir()
        self._switches = []


@contextmanager
def unseen(tracepoint: str, word: str) -> Iterator[list[str]]:
    """Collect the events of a tracepoint, with a word in each: they are there after the body."""
    found: list[str] = []
    with closing(Unseen(tracepoint, tracepoint)) as watch:
        yield found
        found += [line for line in watch.lines() if word in line]
