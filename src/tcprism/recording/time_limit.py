"""A bound on how long DuckDB works at a statement."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def time_limit(connection: Any, seconds: float) -> Iterator[None]:
    """Interrupt what the connection works at after so many seconds; 0: never.

    DuckDB raises InterruptException then, in the thread that waits for it.
    """
    if not seconds:
        yield
        return
    timer = threading.Timer(seconds, connection.interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
