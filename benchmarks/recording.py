"""Recordings: how fast they are written, how large they are, how fast they answer.

Beside them are Parquet with the same events, asked by DuckDB alone, and `tcpdump -w` of the same
traffic. The events are those of `benchmarks.sinks`: 200 connections of a small HTTP service.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.load import load_namespace, put_load
from benchmarks.monitors import tcpdump_to
from benchmarks.rounds import Rounds
from benchmarks.sinks import messages
from benchmarks.table import Table, at_least, at_most
from benchmarks.tracer import lost, total, tracing
from tcprism.events import Batch, Part
from tcprism.events.facts import Facts
from tcprism.recording.reader import Recording
from tcprism.recording.sql import Database
from tcprism.recording.writer import Writer
from tcprism.sinks.parquet import Parquet
from tests.support.netns import Netns

WRITE_RATE = at_least(500_000, "{:,.0f}")
MEMORY = at_most(300, "{:.0f} MB")
BATCH = 20_000
BETWEEN_NS = BATCH * 3_217  # what benchmarks.sinks leaves between events

ASKED = {
    "sum by process": "SELECT comm, sum(bytes) FROM events WHERE kind = 'send' GROUP BY 1",
    "largest by peer": "SELECT remote_ip, pid, count(*), max(bytes) FROM events GROUP BY ALL",
    "count": "SELECT count(*) FROM events",
}


def events(count: int) -> Iterator[Batch]:
    """Yield messages without payload, in batches, time going on."""
    random = np.random.default_rng(1)
    variants = [Part(messages(BATCH, random, b"").rows.copy()) for _ in range(4)]
    for part in variants:
        part.rows["payload_length"] = 0
    for number in range(count // BATCH):
        rows = variants[number % len(variants)].rows.copy()
        rows["ts_ns"] += np.uint64(number * BETWEEN_NS)
        yield Batch([Part(rows)], 1_700_000_000_000_000_000)


def write(count: int, path: str) -> None:
    """Write a recording, as `tcprism record` does."""
    with open(path, "wb") as file:
        writer = Writer(file, Facts(kinds=("send", "recv")))
        for batch in events(count):
            writer.write(batch)
        writer.close()


def write_parquet(count: int, path: str) -> None:
    """Write the same events as `tcprism export --to parquet` does."""
    with open(path, "wb") as file:
        sink = Parquet(file)
        for batch in events(count):
            sink.write(batch)
        sink.close()


def read(_count: int, path: str) -> None:
    """Read a recording as `tcprism replay` does, showing nothing."""
    for _ in Recording(path).batches():
        pass


def ask(number: int, path: str) -> None:
    """Ask a recording."""
    with Database(path) as database:
        list(database.query([*ASKED.values()][number])[1])


def ask_parquet(number: int, path: str) -> None:
    """Ask a Parquet file the same, DuckDB alone."""
    import duckdb

    connection = duckdb.connect()
    connection.execute(f"CREATE VIEW events AS SELECT * FROM '{path}'")
    connection.execute(
        "CREATE VIEW messages AS SELECT * FROM events WHERE kind IN ('send', 'recv')"
    )
    connection.execute([*ASKED.values()][number]).fetchall()


STEPS = {step.__name__: step for step in (write, write_parquet, read, ask, ask_parquet)}


def measured(step: str, number: int, path: Path) -> tuple[float, float]:
    """Return the seconds of CPU and the megabytes that a step takes in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.recording", step, str(number), str(path)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    seconds, megabytes = json.loads(printed)
    return seconds, megabytes


def written(table: Table, count: int, directory: Path) -> None:
    """Measure writing and reading."""
    recording, parquet = directory / "run.tcpr", directory / "run.parquet"
    for name, step, path in (
        ("write a recording", "write", recording),
        ("write Parquet", "write_parquet", parquet),
        ("read the recording", "read", recording),
    ):
        seconds, megabytes = measured(step, count, path)
        size = f"{path.stat().st_size / count:.1f}"
        rate, target, verdict = WRITE_RATE.cells(count / seconds)
        aimed = (target, verdict) if step == "write" else ("", "")
        table.add(name, rate, *aimed, size, *MEMORY.cells(megabytes))


def asked(table: Table, directory: Path) -> None:
    """Measure queries."""
    for number, name in enumerate(ASKED):
        seconds, megabytes = measured("ask", number, directory / "run.tcpr")
        beside, _ = measured("ask_parquet", number, directory / "run.parquet")
        table.add(name, f"{seconds:.2f}", f"{beside:.2f}", *MEMORY.cells(megabytes))


def beside_tcpdump(table: Table, netns: Netns, seconds: float, directory: Path) -> None:
    """Record a flood's segments, with tcpdump's capture of the same packets beside it."""
    path, packets = directory / "flood.tcpr", directory / "flood.pcap"
    arguments = ("--kinds", "transmit")
    with (
        tcpdump_to(netns, packets),
        tracing(netns, *arguments, view="record", output=path) as tracer,
    ):
        done = put_load(netns, "ping-pong", seconds)
        tracer.stop()
    count = total(tracer.ledger, "received")
    table.add(
        f"{done.rate:,.0f} ping-pongs/s",
        f"{count:,}",
        f"{lost(tracer.ledger):,}",
        f"{path.stat().st_size / max(count, 1):.1f}",
        f"{packets.stat().st_size / max(count, 1):.1f}",
    )


def run(rounds: Rounds) -> None:
    """Measure and print."""
    count = rounds.pick(1_000_000, 10_000_000, 10_000_000)
    with tempfile.TemporaryDirectory() as name, load_namespace() as netns:
        directory = Path(name)
        header = ("events/s of CPU", "target", "", "bytes an event", "memory", "target", "")
        table = Table(f"{count:,} messages without payload", ("", *header))
        written(table, count, directory)
        table.print()
        table = Table(
            "queries over them, seconds of CPU",
            ("", "recording", "Parquet, DuckDB alone", "memory", "target", ""),
        )
        asked(table, directory)
        table.print()
        table = Table(
            "the same packets in both, bytes a packet",
            ("", "packets", "lost", "recording", "tcpdump -s96"),
        )
        beside_tcpdump(table, netns, rounds.pick(1, 3, 5), directory)
        table.print()


if __name__ == "__main__":
    begin = time.process_time()  # what else runs on the machine is not ours
    STEPS[sys.argv[1]](int(sys.argv[2]), sys.argv[3])
    took = time.process_time() - begin
    print(json.dumps([took, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))
