"""Targets: what `explain` can explain: a process, a name, a host, or a recording."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import socket
from dataclasses import fields
from pathlib import Path

from tcprism.errors import UnknownTarget, UsageError
from tcprism.events._wire import COMM_LENGTH
from tcprism.filter_texts import parse_comm, parse_network, parse_pids, parse_ports
from tcprism.filters import Criteria

_HOST_AND_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.%]+)\]|([^:\[\]]+))(?::([0-9]{1,5}))?")


def find_target(text: str) -> Criteria | Path:
    """Return the filter that a target stands for, or the recording that it names.

    Raises UnknownTarget and UsageError.
    """
    if os.path.exists(text):  # Path.exists() raises where it may not look
        return Path(text)
    if text.isascii() and text.isdigit():
        return _find_process(text)
    if _runs(text):
        return Criteria(comms=(parse_comm(text),))
    return _find_host(text)


def _find_process(text: str) -> Criteria:
    try:
        return Criteria(pids=parse_pids(text), follow=True)
    except UsageError as error:
        port = f"; --port {text} chooses a port" if _is_port(text) else "; `ps -e` lists them"
        raise UnknownTarget(f"there is no process {text}{port}") from error


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
    wanted = os.fsencode(name)[: COMM_LENGTH - 1]
    for comm in Path("/proc").glob("[0-9]*/task/[0-9]*/comm"):
        with contextlib.suppress(OSError):  # it has just ended
            if comm.read_bytes().removesuffix(b"\n") == wanted:
                return True
    return False


def _find_host(text: str) -> Criteria:
    if _is_address(text):
        _refuse_doubt(text)
        return Criteria(hosts=(parse_network(text),))
    match = _HOST_AND_PORT.fullmatch(text)
    addresses = _addresses(match[1] or match[2]) if match else ()
    if not match or not addresses:
        raise UnknownTarget(
            f"{text!r} is no recording, process, thread name or host here;"
            " name a PID, a COMM, a HOST[:PORT] or a FILE"
        )
    if match[3] and not _is_port(match[3]):
        raise UsageError(f"{text!r}: {match[3]} is not a port from 1 to 65535")
    return Criteria(
        hosts=tuple(map(parse_network, addresses)), ports=parse_ports(match[3]) if match[3] else ()
    )


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_port(text: str) -> bool:
    return text.isdigit() and 0 < int(text) < 1 << 16


def _refuse_doubt(address: str) -> None:
    """Refuse an address that may be meant as a shorter one with a port, as ::1:80."""
    host, _, port = address.rpartition(":")
    if _is_port(port) and _is_address(host):
        raise UsageError(
            f"{address!r} may be an address, or one with a port:"
            f" write [{address}] or [{host}]:{port}"
        )


def _addresses(host: str) -> tuple[str, ...]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):  # nobody knows it, or it can be no name
        return ()
    return tuple(dict.fromkeys(str(address[4][0]).partition("%")[0] for address in found))
