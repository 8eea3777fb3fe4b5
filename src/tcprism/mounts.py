"""Where cgroup v2 is mounted, read as bytes: users may have named other mounts anything."""

from __future__ import annotations

import os
import re
from pathlib import Path

_MOUNTS = Path("/proc/self/mounts")

# The kernel writes what would break a line in octal (mangle() in fs/proc_namespace.c).
_OCTAL = re.compile(rb"\\([0-7]{3})")


def cgroup_roots() -> list[Path]:
    """Return where cgroup v2 is mounted."""
    # Not split() or splitlines(): they also cut at bytes that are part of a name.
    mounts = (line.split(b" ") for line in _MOUNTS.read_bytes().split(b"\n") if line)
    return [Path(os.fsdecode(_plain(where))) for _, where, kind, *_ in mounts if kind == b"cgroup2"]


def _plain(name: bytes) -> bytes:
    return _OCTAL.sub(lambda match: bytes([int(match[1], 8)]), name)
