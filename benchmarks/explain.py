"""What it takes to explain a recording of many connections and a million events."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.rounds import Rounds
from benchmarks.table import Table, at_most
from tcprism.events import Batch, Part
from tcprism.events._wire import MESSAGE, SNAPSHOT, EventKind
from tcprism.events.facts import Facts
from tcprism.recording.writer import Writer

TARGET = at_most(10, "{:.1f} s")
EVENTS, LOOKS, SECOND = 1_000_000, 11, 1_000_000_000
BATCH = 10_000
PAYLOAD = 64


def ends(rows: np.ndarray[tuple[int], np.dtype[np.void]], connections: int) -> None:
    """Give records the ends of as many connections, in turn."""
    rows["family"], rows["netns"], rows["pid"], rows["comm"] = 4, 1, 7, b"client"
    rows["local_ip"][:, 10:] = (255, 255, 192, 0, 2, 1)
    rows["remote_ip"][:, 10:] = (255, 255, 198, 51, 100, 7)
    rows["local_port"] = 20_000 + np.arange(len(rows)) % connections
    rows["remote_port"] = 443


def write(path: Path, connections: int) -> None:
    """Record requests and answers, each 20 ms or more after the one before, and snapshots."""
    with path.open("wb") as file:
        writer = Writer(file, Facts(("send", "recv")))
        for second in range(LOOKS):
            look = np.zeros(connections, SNAPSHOT)
            ends(look, connections)
            look["kind"], look["state"] = EventKind.SNAPSHOT, 1
            look["inode"], look["ts_ns"] = np.arange(1, connections + 1), (second + 1) * SECOND
            writer.write(Batch([Part(look)]))
        step = (LOOKS - 1) * SECOND // EVENTS
        for first in range(0, EVENTS, BATCH):
            rows = np.zeros(BATCH, MESSAGE)
            places = np.arange(first, first + BATCH)
            ends(rows, connections)
            rows["local_port"] = 20_000 + places % connections
            rows["kind"] = np.where(places // connections % 2, EventKind.RECV, EventKind.SEND)
            rows["ts_ns"], rows["bytes"] = SECOND + places * step, 10
            writer.write(Batch([Part(rows, np.zeros((BATCH, PAYLOAD), np.uint8))]))
        writer.close()


def seconds(path: Path) -> float:
    """Return how long `tcprism explain` takes, from start to end."""
    begin = time.monotonic()
    command = (sys.executable, "-m", "tcprism", "explain", str(path), "--format", "json")
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.monotonic() - begin


def run(rounds: Rounds) -> None:
    """Print the table."""
    header = ("connections", "figure", "target", "", "most memory")
    table = Table("explain a recording of a million events", header)
    for connections in (100, 1_000, 10_000):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "run.tcpr")
            write(path, connections)
            figure = min(seconds(path) for _ in range(rounds.pick(1, 3, 5)))
        memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
        table.add(f"{connections:,}", *TARGET.cells(figure), f"{memory} MB")
    table.print()
