"""How much memory this process has, and may have."""

from __future__ import annotations

import ctypes
import os
import re
from contextlib import suppress
from pathlib import Path

from tcprism.mounts import cgroup_roots

_ANONYMOUS = re.compile(rb"^RssAnon:\s+(\d+) kB$", re.MULTILINE)
_CGROUP = re.compile(r"^0::/(.*)$", re.MULTILINE)
_OWN = Path("/proc/self/cgroup")


def anonymous() -> int:
    """Return the bytes that are this process' own: RssAnon of /proc/self/status."""
    found = _ANONYMOUS.search(Path("/proc/self/status").read_bytes())
    return int(found[1]) << 10 if found else 0


def allowed() -> int | None:
    """Return the least memory.max of this process' cgroup and those above it, None without one.

    systemd's MemoryMax= and a container's limit of memory are such.
    """
    limits = []
    for root in cgroup_roots()[:1]:
        with suppress(OSError):
            found = _CGROUP.search(_OWN.read_text(errors="surrogateescape"))
            place = root / found[1] if found else root
            for folder in (place, *place.parents):
                limits.append(_limit(folder / "memory.max"))
                if folder == root:
                    break
    return min(filter(None, limits), default=None)


def _limit(path: Path) -> int:
    """Return a limit in bytes, 0 for none."""
    try:
        text = path.read_text().strip()
    except OSError:  # the root has none
        return 0
    return int(text) if text.isdecimal() else 0


def one_allocator() -> None:
    """Have Arrow take its memory from the C library, as all else does, if it is not imported yet.

    Its own allocators keep what was freed, each thread some, and give_back() does not reach it.
    """
    os.environ["ARROW_DEFAULT_MEMORY_POOL"] = "system"


def give_back() -> None:
    """Give the kernel what is free (malloc_trim(3)). Not all C libraries can."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
