"""What ftrace sees of a tracepoint where BPF programs are not run.

A kernel may keep BPF programs out of the context of a process that it protects. One such 6.18 has
sched_switch tell programs of that process as the next, never as the previous one; ftrace is told of
both. What a softirq does on top of such a process is in no program's sight then.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TRACEFS = Path("/sys/kernel/tracing")
LINE = re.compile(r".*?-(?P<tid>\d+) +\[\d+\] \S+ +[\d.]+: \w+: (?P<rest>.*)")


def _protected(tid: str) -> bool:
    """Return whether root is refused what it may read of every other process."""
    try:
        Path(f"/proc/{tid}/ns/net").readlink()
    except PermissionError:
        return True
    except OSError:
        pass  # it has ended
    return False


@contextmanager
def unseen(tracepoint: str, word: str) -> Iterator[list[str]]:
    """Collect the events of a tracepoint, with a word in each, on top of protected processes.

    They are there when the body has ended. Most machines have no such process.
    """
    found: list[str] = []
    if not any(_protected(place.name) for place in Path("/proc").glob("[0-9]*")):
        yield found
        return
    if not (TRACEFS / "instances").exists():
        subprocess.run(["mount", "-t", "tracefs", "tracefs", TRACEFS], check=True)
    instance = TRACEFS / "instances" / f"tcprism-test-{tracepoint}"
    instance.mkdir()
    (switch,) = instance.glob(f"events/*/{tracepoint}/enable")
    try:
        switch.write_text("1")
        yield found
        switch.write_text("0")
        for line in (instance / "trace").read_text(errors="replace").splitlines():
            event = LINE.fullmatch(line)
            if event and word in event["rest"] and _protected(event["tid"]):
                found.append(line)
    finally:
        switch.write_text("0")
        instance.rmdir()
