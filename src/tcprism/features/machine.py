"""Facts about this machine that decide what can be traced."""

from __future__ import annotations

import os
import platform
import re
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

from tcprism.errors import LibraryMissing, MachineError, PermissionMissing
from tcprism.kernel import libbpf
from tcprism.kernel.types import VMLINUX_BTF

# include/uapi/linux/capability.h
_CAPABILITIES = {
    "CAP_DAC_READ_SEARCH": 2,
    "CAP_NET_ADMIN": 12,
    "CAP_SYS_PTRACE": 19,
    "CAP_SYS_ADMIN": 21,
    "CAP_PERFMON": 38,
    "CAP_BPF": 39,
}

_CLOCK_MONOTONIC_COARSE = 6  # include/uapi/linux/time.h

# PROC_PID_INIT_INO, include/linux/proc_ns.h: pids are those of this namespace.
_INITIAL_PID_NAMESPACE = 0xEFFFFFFC
_PF_KTHREAD = 0x00200000  # include/linux/sched.h


def facts() -> dict[str, Any]:
    """Return what `tcprism doctor` shows of the machine."""
    return {
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "btf": VMLINUX_BTF.exists(),
        "lockdown": lockdown(),
        "initial_pid_namespace": proc_is_of_host(),
        "uid": os.geteuid(),
        "capabilities": capabilities(),
        "libbpf": _library(),
    }


@cache
def proc_is_of_host() -> bool:
    """Tell whether processes have the same ids in /proc here as in the initial pid namespace.

    There alone are threads of the kernel, and the first that it makes is process 2.
    """
    try:
        fields = Path("/proc/2/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:  # /proc may be told to hide it
        return Path("/proc/self/ns/pid").stat().st_ino == _INITIAL_PID_NAMESPACE
    return bool(int(fields[6]) & _PF_KTHREAD)


def proc_is_own() -> bool:
    """Tell whether /proc is that of this process's own pid namespace, and not of one above."""
    status = Path("/proc/self/status").read_bytes()
    return re.search(rb"^NSpid:\s+[0-9]+$", status, re.MULTILINE) is not None


def _library() -> dict[str, str | None]:
    try:
        library = libbpf.load()
    except LibraryMissing as error:
        return {"version": None, "path": None, "error": str(error)}
    return {"version": library.version, "path": library.real_path(), "error": None}


def capabilities() -> dict[str, bool]:
    """Return which of the capabilities that hooks may need this process has in effect."""
    # As bytes: a process is called what it likes.
    status = Path("/proc/self/status").read_bytes()
    effective = int(re.findall(rb"\nCapEff:\s*([0-9a-f]+)", status)[0], 16)
    return {name: bool(effective >> bit & 1) for name, bit in _CAPABILITIES.items()}


def require() -> None:
    """Raise MachineError when this machine or this process on it cannot trace.

    The rings rely on the order in which x86 stores to memory; others would need barriers there.
    """
    if (architecture := platform.machine()) != "x86_64":
        raise MachineError(
            f"tracing needs an x86-64 machine and this one is {architecture}: record on x86-64,"
            " recordings can be read anywhere"
        )
    _require_privileges()


def _require_privileges() -> None:
    """Raise PermissionMissing, naming the capability, when this process may not load programs."""
    have = capabilities()
    if have["CAP_SYS_ADMIN"]:
        return
    missing = [name for name in ("CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN") if not have[name]]
    if missing:
        raise PermissionMissing(
            f"tracing needs root ({', '.join(missing)} missing): run `sudo {_own_path()} ...`"
        )


def tick_ns() -> int:
    """Return how long a jiffy is: the coarse clock ticks once in each."""
    return round(time.clock_getres(_CLOCK_MONOTONIC_COARSE) * 1e9)


def lockdown() -> str:
    """Return the kernel lockdown mode, or "none" when the kernel has no lockdown."""
    try:
        text = Path("/sys/kernel/security/lockdown").read_bytes()
    except OSError:
        return "none"
    chosen = re.findall(rb"\[(\w+)\]", text)
    return chosen[0].decode("ascii") if chosen else "none"


def _own_path() -> str:
    """Return the path that started us: sudo does not look into virtual environments."""
    return sys.argv[0] if Path(sys.argv[0]).name == "tcprism" else "tcprism"
