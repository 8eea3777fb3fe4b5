"""Which processes filter their system calls."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

_MODE = re.compile(rb"^Seccomp:\t([0-9]+)$", re.M)


def with_seccomp(pids: Iterable[int]) -> set[int]:
    """Return those of the processes of which a thread filters its system calls, in any mode."""
    return {pid for pid in pids if any(map(_filters, _threads(pid)))}


def _threads(pid: int) -> list[str]:
    try:
        return [f"/proc/{pid}/task/{thread}/status" for thread in os.listdir(f"/proc/{pid}/task")]
    except OSError:
        return []


def _filters(status: str) -> bool:
    try:
        with open(status, "rb") as file:
            mode = _MODE.search(file.read())
    except OSError:
        return False
    return mode is not None and mode[1] != b"0"
