"""What a run gives up once its hooks are on: privileges, and most of what a process may do."""

from __future__ import annotations

import os
import pwd
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tcprism.errors import KernelRefused, UsageError
from tcprism.kernel import confinement
from tcprism.mounts import cgroup_roots

NOBODY = "nobody"

# What Python and the C library may read, though they have begun: modules, zones, libraries.
_SYSTEM = (
    "/usr", "/lib", "/lib64", "/proc", "/dev/null", "/dev/urandom", "/etc/localtime",
    "/sys/devices/system/cpu/possible", "/sys/fs/cgroup",  # how many CPUs DuckDB may use
)  # fmt: skip
_NAMES = (  # resolving names and checking certificates
    "/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf",
    "/etc/services", "/etc/ssl", "/etc/pki", "/etc/ca-certificates",
)  # fmt: skip
# Files that the exporter of OTLP is told of.
_CERTIFICATES = (
    "OTEL_EXPORTER_OTLP_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_CLIENT_KEY",
)
# Of sockets: for TCP, for DNS, and how getaddrinfo() asks for this host's addresses. Not AF_UNIX:
# root may connect to many of those, without privileges, too, and some have root do anything.
_FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK)
_PATIENCE = 5.0  # seconds for threads that are about to end

# Before 5.19 (c8644cd0efe7) all of bpf(2) may need CAP_BPF: unprivileged_bpf_disabled.
_KEPT: tuple[tuple[int, ...], ...] = ((), (confinement.CAP_BPF,))


@dataclass(frozen=True, slots=True)
class User:
    """Whom a run goes on as."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Needs:
    """What a run goes on to do: it writes below `writable`, and connects to TCP ports if any.

    `readable` are files that it opens when it connects. `user` is None to stay who it is.
    """

    user: User | None
    writable: Sequence[Path] = ()
    connects: Sequence[int] = ()
    readable: Sequence[Path] = ()


def find_user(name: str | None, records: bool) -> User | None:
    """Return whom to go on as: the user named; under sudo who called it; else `nobody`.

    Root itself, without its privileges, where it `records`: whoever else is `nobody` could read the
    files. None: whoever runs it, if that is not root. Raises UsageError.
    """
    if os.geteuid():
        if name is not None and _user(name).uid != os.geteuid():
            raise UsageError("--user needs root: only root can become another user")
        return None
    if name is not None:
        return _user(name)
    if (uid := os.environ.get("SUDO_UID", "")).isdecimal():
        return _user(uid)
    return _user("root" if records else NOBODY)


def _user(name: str) -> User:
    try:
        found = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except (KeyError, OverflowError, ValueError) as error:
        raise UsageError(f"--user: there is no user {name!r}") from error
    return User(found.pw_name, found.pw_uid, found.pw_gid)


def own(path: Path, user: User | None) -> None:
    """Give a folder to a user. Raises OSError."""
    if user:
        os.chown(path, user.uid, user.gid)


def give_up(needs: Needs, trial: Callable[[], object]) -> list[str]:
    """Give up what a run does not need; return lines that say what it may still do.

    `trial` is what must go on to work. It is tried in a child, and where the kernel refuses it
    CAP_BPF is kept. Raises KernelRefused when even that does not do. To be called without threads.
    """
    _await_threads()
    kept = next((kept for kept in _KEPT if _works(needs, kept, trial)), None)
    if kept is None:
        raise KernelRefused(
            "this kernel does not let its counters be read without privileges: use a newer one"
        )
    return _confine(needs, kept)


def _await_threads() -> None:
    deadline = time.monotonic() + _PATIENCE
    while len(os.listdir("/proc/self/task")) > 1:
        if time.monotonic() > deadline:
            raise KernelRefused(
                "threads are in the way of giving up privileges: start it without"
                " OPENBLAS_NUM_THREADS in the environment"
            )
        time.sleep(0.01)


def _works(needs: Needs, kept: Sequence[int], trial: Callable[[], object]) -> bool:
    child = os.fork()
    if not child:
        status = 1
        try:
            _confine(needs, kept)
            trial()
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1] == 0


def _confine(needs: Needs, kept: Sequence[int]) -> list[str]:
    user = (needs.user.uid, needs.user.gid) if needs.user else None
    confinement.drop_capabilities(user, kept)
    readable = (*_SYSTEM, *confinement.own_places(), *map(str, cgroup_roots()))
    if needs.connects:
        told = (os.environ[name] for name in _CERTIFICATES if name in os.environ)
        readable = (*readable, *_NAMES, *told, *map(str, needs.readable))
    files = confinement.restrict_files(readable, map(str, needs.writable), needs.connects)
    calls = confinement.refuse_system_calls(_FAMILIES if needs.connects else ())
    name = needs.user.name if needs.user else pwd_name(os.geteuid())
    without = "with CAP_BPF alone" if kept else "without privileges"
    lines = [f"going on as {name}, {without}"]
    if not files:
        lines.append("this kernel has no Landlock: files are protected by their modes alone")
    if not calls:
        lines.append("system calls are not filtered on this architecture")
    return lines


def pwd_name(uid: int) -> str:
    """Return a user's name, or the number of one without."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
