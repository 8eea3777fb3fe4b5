"""What users write to choose events, parsed. Each function raises UsageError or UnknownTarget."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import socket
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from tcprism.errors import UnknownTarget, UsageError
from tcprism.filters import V4_BITS, Criteria, IpNetwork
from tcprism.mounts import cgroup_roots

# include/uapi/linux/nsfs.h, sched.h
_NS_GET_NSTYPE = 0xB703
_CLONE_NEWNET = 0x40000000

_INDEX = re.compile("[0-9]{1,9}")

Texts = Mapping[str, Iterable[str]]

OPTIONS = (
    "pid",
    "comm",
    "host",
    "remote_host",
    "port",
    "local_port",
    "remote_port",
    "cgroup",
    "container",
    "netns",
    "family",
)
Value = TypeVar("Value")


def parse(texts: Texts, pids: Iterable[int] = (), follow: bool = False) -> Criteria:
    """Return the filter that the options' values make: `texts` has them by the option's name.

    Pids, cgroups and network namespaces must be there on this machine. `pids` come on top.
    """
    return Criteria(
        pids=(*_flatten(parse_pids(text) for text in texts.get("pid", ())), *pids),
        cgroups=(
            *_each(texts, "cgroup", parse_cgroup),
            *_flatten(_each(texts, "container", find_container)),
        ),
        netns=_each(texts, "netns", parse_netns),
        follow=follow,
        **_without_machine(texts),
    )


def parse_recorded(texts: Texts, follow: bool = False) -> Criteria:
    """Return the filter for events of another time and machine: nothing need be there now."""
    if follow:
        raise UsageError(
            "--follow works while tracing only: a recording does not tell who started whom"
        )
    return Criteria(
        pids=_flatten(_recorded_pids(text) for text in texts.get("pid", ())),
        cgroups=_each(texts, "cgroup", _recorded_cgroup),
        containers=tuple(texts.get("container", ())),
        netns=_each(texts, "netns", _recorded_netns),
        **_without_machine(texts),
    )


def check(texts: Texts) -> None:
    """Refuse what makes no sense on any machine. Raises UsageError."""
    _flatten(_recorded_pids(text) for text in texts.get("pid", ()))
    _without_machine(texts)


def _without_machine(texts: Texts) -> dict[str, Any]:
    """Parse what means the same everywhere."""
    ports = {
        f"{name}s": _flatten(
            parse_ports(text, f"--{name.replace('_', '-')}") for text in texts.get(name, ())
        )
        for name in ("port", "local_port", "remote_port")
    }
    return {
        "comms": _each(texts, "comm", parse_comm),
        "hosts": _each(texts, "host", parse_network),
        "remote_hosts": _each(texts, "remote_host", lambda t: parse_network(t, "--remote-host")),
        "family": sum(_each(texts, "family", _parse_family)),
        **ports,
    }


def _each(texts: Texts, name: str, parse: Callable[[str], Value]) -> tuple[Value, ...]:
    return tuple(map(parse, texts.get(name, ())))


def _flatten(groups: Iterable[tuple[Value, ...]]) -> tuple[Value, ...]:
    return tuple(value for group in groups for value in group)


def _parse_family(text: str) -> int:
    if text not in ("4", "6"):
        raise UsageError(f"--family: {text!r} is neither 4 nor 6")
    return int(text)


def _recorded_pids(text: str) -> tuple[int, ...]:
    return tuple(map(_pid_number, text.split(",")))


def _recorded_cgroup(text: str) -> Path:
    """Return a path below the root of cgroup v2, wherever that is mounted."""
    return Path("/", text.removeprefix("/sys/fs/cgroup").lstrip("/"))


def _recorded_netns(text: str) -> int:
    if not re.fullmatch("[0-9]{1,10}", text):
        raise UsageError(
            f"--netns: {text!r} is not in a recording: give the number that the key netns has"
        )
    return int(text)


def parse_pids(text: str) -> tuple[int, ...]:
    """Parse "1234,5678"; every process must exist."""
    return tuple(_parse_pid(part) for part in text.split(","))


def _pid_number(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,10}", text.strip()) or int(text) == 0:
        raise UsageError(f"--pid: {text!r} is not a process id; write for example --pid 1234,5678")
    return int(text)


def _parse_pid(text: str) -> int:
    _pid_number(text)
    try:
        status = Path(f"/proc/{int(text)}/status").read_bytes()
    except OSError as error:
        raise UnknownTarget(
            f"--pid: there is no process {int(text)}; `ps -e` lists them"
        ) from error
    pid = int(re.findall(rb"\nTgid:\s*([0-9]+)", status)[0])
    if pid != int(text):
        raise UnknownTarget(f"--pid: {int(text)} is a thread of process {pid}; give the process")
    return pid


def parse_comm(text: str) -> str:
    """Check a thread name."""
    if not text or "\0" in text:
        raise UsageError("--comm: the name must not be empty; `ps -eo comm` lists the names")
    return text


def parse_network(text: str, option: str = "--host") -> IpNetwork:
    """Parse "10.0.0.1", "10.0.0.0/8", "fe80::1%eth0"; an IPv4-mapped one becomes IPv4.

    `option` is what an error names. An interface of another network namespace has its index only.
    """
    address, percent, interface = text.partition("%")
    if percent:
        return _parse_scoped(address, interface, option)
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise UsageError(
            f"{option}: {text!r} is not an address or a prefix; write for example 10.1.2.3,"
            " 10.0.0.0/8 or 2001:db8::/32"
        ) from error
    mapped = network.network_address.ipv4_mapped if network.version == 6 else None
    if mapped is not None and network.prefixlen >= V4_BITS:
        return ipaddress.ip_network((mapped, network.prefixlen - V4_BITS))
    return network


def _parse_scoped(address: str, interface: str, option: str) -> IpNetwork:
    """Parse a link-local address with its interface, by name or index."""
    network = parse_network(address, option)
    if (
        network.version != 6
        or not network.is_link_local
        or network.prefixlen < network.max_prefixlen
    ):
        raise UsageError(
            f"{option}: only one link-local address has an interface, as in fe80::1%eth0"
        )
    try:
        index = int(interface) if _INDEX.fullmatch(interface) else socket.if_nametoindex(interface)
    except (OSError, ValueError) as error:
        raise UnknownTarget(
            f"{option}: there is no interface {interface!r} here; give its index, the key scope_id,"
            " if it is elsewhere"
        ) from error
    return ipaddress.ip_network(f"{network.network_address}%{index}")


def parse_ports(text: str, option: str = "--port") -> tuple[tuple[int, int], ...]:
    """Parse "443" or "8000-8100", several with commas, into inclusive ranges.

    `option` is what an error names.
    """
    return tuple(_parse_port_range(part, option) for part in text.split(","))


def _parse_port_range(text: str, option: str) -> tuple[int, int]:
    match = re.fullmatch(r"\s*([0-9]{1,5})(?:-([0-9]{1,5}))?\s*", text)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 0 < first <= last <= 65535:
        raise UsageError(
            f"{option}: {text!r} is not a port or a range of ports from 1 to 65535;"
            f" write for example {option} 443 or {option} 8000-8100"
        )
    return first, last


def parse_cgroup(text: str) -> Path:
    """Check the path of a cgroup v2 directory; one without a leading mount is looked up in it."""
    for path in (
        () if not text else (Path(text), *(root / text.lstrip("/") for root in cgroup_roots()))
    ):
        if os.path.exists(path / "cgroup.procs") and _is_cgroup2(path):
            return path
    roots = " or ".join(map(str, cgroup_roots()))
    where = f"look below {roots}" if roots else "no cgroup2 file system is mounted here"
    raise UnknownTarget(f"--cgroup: {text} is not a cgroup v2 directory; {where}")


def _is_cgroup2(path: Path) -> bool:
    return any(path.resolve().is_relative_to(root) for root in cgroup_roots())


def find_container(text: str) -> tuple[Path, ...]:
    """Return the cgroups of a running container. Raises UnknownTarget."""
    from tcprism.names.cgroups import Names, find_cgroups

    return find_cgroups(text, cgroup_roots(), Names())


def parse_netns(text: str) -> int:
    """Return the inode of a network namespace given as a path, a name of `ip netns`, or a pid."""
    if text.isdecimal():
        candidates = [Path(f"/proc/{text}/ns/net")]
    else:
        candidates = [Path(text), Path("/run/netns", text)]
    import fcntl  # not there on every system that can read a recording

    for path in candidates:
        with contextlib.suppress(OSError), path.open("rb") as namespace:
            if fcntl.ioctl(namespace, _NS_GET_NSTYPE) == _CLONE_NEWNET:
                return path.stat().st_ino
    raise UnknownTarget(
        f"--netns: {text} is no network namespace; give a path such as /run/netns/NAME, or a pid"
    )
