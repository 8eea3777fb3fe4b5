"""What a look at all connections costs: `tcprism top` takes one every second."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.load import load_namespace
from benchmarks.rounds import Rounds
from benchmarks.table import Table, at_most
from tcprism.diagnosis.table import advance, empty
from tcprism.filters import Criteria
from tcprism.sources.snapshots import Snapshots
from tests.support.netns import Netns

THOUSAND = at_most(10, "{:.1f} ms")  # of CPU a look: 1 % of a core
HUNDRED_THOUSAND = at_most(500, "{:.0f} ms")
SOCKETS_A_PROCESS = 10_000  # below the usual limit of open files

HOLD = """
import resource, socket, sys
limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
sockets = [socket.socket() for _ in range(int(sys.argv[1]))]
print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def idle_sockets(netns: Netns, count: int) -> Iterator[None]:
    """Have so many TCP sockets open in a namespace, by as many processes as that takes."""
    processes = []
    try:
        for first in range(0, count, SOCKETS_A_PROCESS):
            some = str(min(SOCKETS_A_PROCESS, count - first))
            command = netns.command(sys.executable, "-c", HOLD, some)
            pipe = subprocess.PIPE
            processes.append(subprocess.Popen(command, stdin=pipe, stdout=pipe))
        for process in processes:
            assert process.stdout
            process.stdout.readline()
        yield
    finally:
        for process in processes:
            process.communicate()


def milliseconds_a_look(netns: Netns, looks: int) -> tuple[int, float]:
    """Return how many sockets there are, and the CPU time of a snapshot and its table."""
    with Snapshots(Criteria(netns=(netns.inode,))) as snapshots:
        table = empty()
        begun = 0.0
        for look in range(looks + 2):  # the first two make the histories
            if look == 2:
                begun = time.process_time()
            (part,) = snapshots.take().parts
            table = advance(table, part)
        return len(table), (time.process_time() - begun) / looks * 1000


def run(rounds: Rounds) -> None:
    """Print the table."""
    looks = rounds.pick(3, 10, 50)
    table = Table("a look at all connections, CPU time", ("sockets", "figure", "target", ""))
    for count, target in ((1_000, THOUSAND), (100_000, HUNDRED_THOUSAND)):
        with load_namespace() as netns, idle_sockets(netns, count):
            found, figure = milliseconds_a_look(netns, looks)
            table.add(f"{found:,}", *target.cells(figure))
    table.print()
