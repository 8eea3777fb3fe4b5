"""Requests by the million, made a column at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tcprism.events import Batch, Part
from tcprism.events.kinds import RECORDS

from .asked import CLIENT, MS
from .records import rows_of
from .session import CLOCK_OFFSET, START

EVERY = 50_000  # nanoseconds between two requests
RESOURCES = 1000
FAILED = 100  # every hundredth fails


def million(count: int, batch: int = 10_000) -> Iterator[Batch]:
    """Yield `count` requests: number n asks for /item/(n % RESOURCES) at n * EVERY.

    It takes n % 977 + 1 milliseconds, and it fails if FAILED divides n.
    """
    like = rows_of(
        "request", [{**CLIENT, "server_comm": b"nginx", "server_pid": 431, "protocol": b"http"}]
    )
    resources = np.array([f"/item/{number}" for number in range(RESOURCES)], object)
    for first in range(0, count, batch):
        numbers = np.arange(first, min(count, first + batch))
        rows: Any = np.repeat(like, len(numbers)).astype(RECORDS["request"])
        rows["start_ts_ns"] = START + numbers * EVERY
        rows["request_ns"] = (numbers % 977 + 1) * MS
        rows["server_ns"] = rows["request_ns"]
        rows["ts_ns"] = START + first * EVERY + 1000 * MS  # as they end
        rows["failed"] = numbers % FAILED == 0
        rows["request_state"] = 1
        texts = {
            "method": np.full(len(numbers), "GET", object),
            "resource": resources[numbers % RESOURCES],
            "status": np.where(rows["failed"] != 0, "503", "200").astype(object),
            "retransmission_causes": np.full(len(numbers), None, object),
        }
        derived = {
            name: np.ma.MaskedArray(column, np.full(len(column), name == "retransmission_causes"))
            for name, column in texts.items()
        }
        yield Batch([Part(rows, derived=derived)], CLOCK_OFFSET)
