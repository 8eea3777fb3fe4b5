#!/usr/bin/env python3
"""How many events a second each sink takes, writing to a file, on one core.

The events look like a small HTTP service's: 200 connections, 64 bytes of payload, times and
sequence numbers all different. The best of several rounds counts: what disturbs a round is not
the sink's.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from tcprism.events import Batch, Part
from tcprism.events._wire import MESSAGE, SEGMENT, EventKind
from tcprism.sinks import Sink
from tcprism.sinks.count import Count
from tcprism.sinks.json_lines import JsonLines
from tcprism.sinks.text import Text

CONNECTIONS = 200
HTTP = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 17\r\n\r\n"
PAYLOAD_BYTES = 64


def fill_events(rows: NDArray[np.void], random: np.random.Generator) -> None:
    """Give every record a time, an owner and a connection."""
    connection = random.integers(0, CONNECTIONS, len(rows))
    rows["ts_ns"] = 1_000_000_000_000 + np.arange(len(rows)) * 3_217
    rows["socket"] = 5_000 + connection
    rows["cgroup_id"] = 4_242
    rows["pid"] = rows["tid"] = 1_000 + connection % 8
    rows["uid"] = 1_000
    rows["netns"] = 4_026_531_840
    rows["comm"] = b"http-worker"
    rows["local_ip"] = rows["remote_ip"] = [0] * 10 + [255, 255, 10, 0, 0, 1]
    rows["local_port"] = 8_080
    rows["remote_port"] = 30_000 + connection
    rows["family"] = 4
    rows["bytes"] = random.integers(PAYLOAD_BYTES, 1_448, len(rows))
    rows["seq"] = random.integers(0, 1 << 32, len(rows))


def messages(count: int, random: np.random.Generator, payload: bytes | None) -> Part:
    """Return a part of sends and receives; without a payload, of random bytes."""
    rows = np.zeros(count, MESSAGE)
    fill_events(rows, random)
    rows["kind"] = random.integers(EventKind.SEND, EventKind.RECV + 1, count)
    rows["requested"] = rows["bytes"]
    rows["duration_ns"] = random.integers(800, 90_000, count)
    rows["payload_length"] = PAYLOAD_BYTES
    if payload is None:
        return Part(rows, random.integers(0, 256, (count, PAYLOAD_BYTES), np.uint8))
    one = np.frombuffer(payload[:PAYLOAD_BYTES], np.uint8)
    return Part(rows, np.tile(one, (count, 1)))


def segments(count: int, random: np.random.Generator) -> Part:
    """Return a part of transmitted segments."""
    rows = np.zeros(count, SEGMENT)
    fill_events(rows, random)
    rows["kind"] = EventKind.TRANSMIT
    rows["flags"] = 0x18
    rows["end_seq"] = rows["seq"] + rows["bytes"]
    rows["ack"] = random.integers(0, 1 << 32, count)
    rows["window"] = 502
    rows["cwnd"] = 10
    rows["srtt_us"] = random.integers(20, 400, count)
    rows["segs"] = 1
    return Part(rows)


def best_rate(make: Callable[[BinaryIO], Sink], batches: list[Batch], rounds: int) -> float:
    """Return events a second of CPU time, in the best round."""
    best = float("inf")
    for _ in range(rounds):
        fresh = [Batch(batch.parts, batch.clock_offset_ns) for batch in batches]
        with tempfile.TemporaryFile() as file:
            sink = make(file)
            start = time.process_time()
            for batch in fresh:
                sink.write(batch)
            sink.close()
            best = min(best, time.process_time() - start)
    return sum(map(len, batches)) / best


def sinks() -> dict[str, Callable[[BinaryIO], Sink]]:
    """Return how to make each sink."""
    return {
        "json": JsonLines,
        "text": lambda file: Text(file, color=False),
        "text, coloured": lambda file: Text(file, color=True),
        "text, hex": lambda file: Text(file, color=False, style="hex"),
        "text, no payload": lambda file: Text(file, color=False, style="none"),
        "count": Count,
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--events", type=int, default=120_000, help="events a round")
    parser.add_argument("--batch", type=int, default=20_000, help="events a batch")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    random = np.random.default_rng(1)
    makers: dict[str, Callable[[], Part]] = {
        "HTTP": lambda: messages(options.batch, random, HTTP),
        "random bytes": lambda: messages(options.batch, random, None),
        "segments": lambda: segments(options.batch, random),
    }
    print(f"events/s{'':16}" + "".join(f"{name:>16}" for name in makers))
    batches = {
        name: [Batch([make()], 1_700_000_000_000_000_000)] * (options.events // options.batch)
        for name, make in makers.items()
    }
    for name, sink in sinks().items():
        rates = [best_rate(sink, batches[load], options.rounds) for load in makers]
        print(f"{name:24}" + "".join(f"{rate:16,.0f}" for rate in rates), flush=True)


if __name__ == "__main__":
    main()
