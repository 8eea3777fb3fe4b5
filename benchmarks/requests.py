#!/usr/bin/env python3
"""How many requests a second are read off messages, on one core, by protocol.

Each request is a send and a recv of its client, with payload, on one of 200 connections. The best
of several rounds counts: what disturbs a round is not the stage's.
"""

from __future__ import annotations

import time

import numpy as np

from benchmarks.rounds import Rounds
from benchmarks.table import Table, at_least
from tcprism.events import Batch, Part
from tcprism.events._wire import DURATION_UNKNOWN, MESSAGE, MICROSECONDS_UNKNOWN, EventKind
from tcprism.stages.requests import Requests

CONNECTIONS = 200
WIDTH = 256


def _postgresql(kind: bytes, body: bytes) -> bytes:
    return kind + (len(body) + 4).to_bytes(4, "big") + body


_COLUMN = b"abalance\0" + bytes(6) + b"\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0"
SPOKEN = {
    "http": (
        b"GET /cart/7?token=1 HTTP/1.1\r\nHost: shop\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nServer: bench\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\n"
        b"hello",
        at_least(50e3, "{:,.0f}"),
    ),
    "redis": (
        b"*3\r\n$3\r\nSET\r\n$16\r\nkey:000000000042\r\n$3\r\nabc\r\n",
        b"+OK\r\n",
        at_least(50e3, "{:,.0f}"),
    ),
    "postgresql": (
        _postgresql(b"Q", b"SELECT abalance FROM pgbench_accounts WHERE aid = 421337;\0"),
        _postgresql(b"T", b"\0\x01" + _COLUMN)
        + _postgresql(b"D", b"\0\x01\0\0\0\x0542000")
        + _postgresql(b"C", b"SELECT 1\0")
        + _postgresql(b"Z", b"I"),
        at_least(20e3, "{:,.0f}"),
    ),
}


def conversation(request: bytes, response: bytes, count: int) -> Batch:
    """Return the messages of `count` requests."""
    turns = np.arange(count)
    rows = np.zeros(2 * count, MESSAGE)
    rows["kind"] = np.tile([EventKind.SEND, EventKind.RECV], count)
    rows["ts_ns"] = 1_000_000_000_000 + np.arange(2 * count) * 3_217
    rows["pid"] = rows["tid"] = 1_000
    rows["netns"], rows["family"] = 4_026_531_840, 4
    rows["local_ip"] = rows["remote_ip"] = [0] * 10 + [255, 255, 10, 0, 0, 1]
    rows["local_port"] = np.repeat(30_000 + turns % CONNECTIONS, 2)
    rows["remote_port"] = 80
    rows["duration_ns"], rows["unread_us"] = DURATION_UNKNOWN, MICROSECONDS_UNKNOWN
    payload = np.zeros((2 * count, WIDTH), np.uint8)
    for place, said in enumerate((request, response)):
        rows["bytes"][place::2] = rows["payload_length"][place::2] = len(said)
        rows["seq"][place::2] = 1_000 + turns // CONNECTIONS * len(said)
        payload[place::2, : len(said)] = np.frombuffer(said, np.uint8)
    return Batch([Part(rows, payload)])


def rate(batch: Batch, count: int, rounds: int) -> float:
    """Return requests a second of CPU time, in the best round."""
    best = float("inf")
    for _ in range(rounds):
        stage = Requests(alone=True)
        begin = time.process_time()
        made = sum(len(stage(piece)) for piece in batch.split(20_000))
        best = min(best, time.process_time() - begin)
        assert made == count, f"{made} of {count} requests were found"
    return count / best


def run(rounds: Rounds) -> None:
    """Measure, and print a table."""
    count = rounds.pick(20_000, 50_000, 200_000)
    table = Table(
        "requests read off messages of clients, on one core",
        ("protocol", "requests/s", "target", "", "us a request"),
    )
    for name, (request, response, target) in SPOKEN.items():
        batch = conversation(request, response, count)
        found = rate(batch, count, rounds.pick(2, 4, 6))
        table.add(name, *target.cells(found), f"{1e6 / found:.1f}")
    table.print()
