"""Targets: what `explain` is asked about: a process, a name, a host, or a recording."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
from dataclasses import fields
from pathlib import Path

from tcprism.errors import UnknownTarget, UsageError
from tcprism.filters import Criteria, parse_comm, parse_network, parse_pids, parse_ports

_HOST_AND_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.%]+)\]|([^:\[\]]+))(?::([0-9]{1,5}))?")


def find_target(text: str) -> Criteria | Path:
    """Return the filter that a target stands for, or the recording that it names.

    Raises UnknownTarget and UsageError.
    """
    if Path(text).exists():
        return Path(text)
    if text.isascii() and text.isdigit():
        return Criteria(pids=parse_pids(text), follow=True)
    if _runs(text):
        return Criteria(comms=(parse_comm(text),))
    return _find_host(text)


def both(first: Criteria, second: Criteria) -> Criteria:
    """Return the filter that lets pass what two filters do. Raises UsageError.

    Values of one field are alternatives, so no field can be in both.
    """
    chosen = {
        field.name: getattr(criteria, field.name)
        for criteria in (first, second)
        for field in fields(Criteria)
        if getattr(criteria, field.name)
    }
    for field in fields(Criteria):
        if getattr(first, field.name) and getattr(second, field.name):
            raise UsageError(f"what is asked about chooses {field.name} already, and so do options")
    return Criteria(**chosen)


def _runs(name: str) -> bool:
    """Tell whether a thread has this name, cut as the kernel cuts it."""
    for comm in Path("/proc").glob("[0-9]*/task/[0-9]*/comm"):
        with contextlib.suppress(OSError):  # it has just ended
            if comm.read_text(errors="replace").rstrip("\n") == name[:15]:
                return True
    return False


def _find_host(text: str) -> Criteria:
    try:
        return Criteria(hosts=(parse_network(str(ipaddress.ip_address(text))),))
    except ValueError:
        match = _HOST_AND_PORT.fullmatch(text)
    addresses = _addresses(match[1] or match[2]) if match else ()
    if not match or not addresses:
        raise UnknownTarget(
            f"{text!r} is no recording, process, thread name or host here;"
            " name a PID, a COMM, a HOST[:PORT] or a FILE"
        )
    return Criteria(
        hosts=tuple(map(parse_network, addresses)), ports=parse_ports(match[3]) if match[3] else ()
    )


def _addresses(host: str) -> tuple[str, ...]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return ()
    return tuple(dict.fromkeys(str(address[4][0]).partition("%")[0] for address in found))
