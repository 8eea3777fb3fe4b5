"""How soon tcprism is there, what the verifier has to do for that, and how much memory it takes."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from statistics import median

from benchmarks.load import load_namespace, put_load
from benchmarks.rounds import Rounds
from benchmarks.table import Table, Target, at_most
from benchmarks.tracer import tracing
from tcprism.events._wire import PAYLOAD_MAX
from tcprism.events.kinds import KINDS
from tcprism.sources.request import Request
from tcprism.sources.tracing import Tracing
from tests.support.bpf import verified_instructions
from tests.support.netns import Netns
from tests.support.tracer import TCPRISM

HELP = at_most(0.15, "{:.3f} s")
FIRST_EVENT = at_most(0.5, "{:.3f} s")
# docs/ledger.md says what it is: 50 MB at the start, what is being written, 83 MB of sends where
# these are remembered. The flood has more than the million that are.
MEMORY = at_most(80, "{:.0f} MB")
MEMORY_WITH_SENDS = at_most(150, "{:.0f} MB")
_MEGABYTE = 1_000_000

# Users have byte code, which this would keep Python from writing: 0.1 s more at each start.
_ENVIRONMENT = {
    name: each for name, each in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
}


def help_seconds() -> float:
    """Return how long `tcprism --help` takes."""
    start = time.perf_counter()
    subprocess.run([TCPRISM, "--help"], check=True, stdout=subprocess.DEVNULL, env=_ENVIRONMENT)
    return time.perf_counter() - start


def first_event_seconds(netns: Netns) -> float:
    """Return the time from the start of `tcprism trace` to its first byte under traffic."""
    traffic = threading.Thread(target=put_load, args=(netns, "flood", 3.0, 64, 2000))
    traffic.start()
    start = time.perf_counter()
    limits = ("--count", "1", "--duration", "10")
    command = [TCPRISM, "trace", "--netns", netns.name, *limits]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0, env=_ENVIRONMENT
    ) as process:
        assert process.stdout
        if not process.stdout.read(1):
            raise RuntimeError("tcprism trace ended without an event")
        seconds = time.perf_counter() - start
    traffic.join()
    return seconds


def verified(request: Request) -> dict[str, int]:
    """Return how many instructions the verifier follows, by program."""
    with Tracing(request) as tracing:
        bpf = tracing._hooks._object
        return {name: verified_instructions(bpf.program_fd(name)) for name in bpf.loaded}


def print_verified() -> None:
    """Print the table of what the verifier follows, the most first."""
    default, most = verified(Request()), verified(Request(KINDS, payload=PAYLOAD_MAX))
    table = Table(
        "instructions verified", ("program", "default", f"all kinds, {PAYLOAD_MAX} bytes")
    )
    for name in sorted(most, key=most.__getitem__, reverse=True):
        table.add(name, f"{default[name]:,}" if name in default else "", f"{most[name]:,}")
    table.add("all", f"{sum(default.values()):,}", f"{sum(most.values()):,}")
    table.print()


def memory(netns: Netns, *arguments: str) -> tuple[float, float]:
    """Return megabytes after a flood: without the mapped rings, and of the rings."""
    with tracing(netns, *arguments) as tracer:
        put_load(netns, "flood", 2.0, 64, 200_000)
        put_load(netns, "flood", 0.5)
        other, rings = tracer.resident_bytes()
    return other / _MEGABYTE, rings / _MEGABYTE


def run(rounds: Rounds) -> None:
    """Print the table."""
    repeats = rounds.pick(3, 5, 21)
    table = Table("start and memory", ("what", "figure", "target", "", "rings"))

    def add(name: str, target: Target, figure: float, rings: str = "") -> None:
        table.add(name, *target.cells(figure), rings)

    help_seconds()  # the first compiles Python's byte code
    add("--help", HELP, median(help_seconds() for _ in range(repeats)))
    with load_namespace() as netns:
        seconds = median(first_event_seconds(netns) for _ in range(repeats))
        add("start to first event", FIRST_EVENT, seconds)
        for name, arguments in {
            "memory, --count-only": ("--count-only",),
            "memory, text": (),
            "memory, JSON": ("--format", "json"),
            "memory, JSON, 2000 bytes": ("--format", "json", "--payload", "2000"),
        }.items():
            other, rings = memory(netns, *arguments)
            target = MEMORY if "--count-only" in arguments else MEMORY_WITH_SENDS
            add(name, target, other, f"{rings:.0f} MB")
    table.print()
    print_verified()
