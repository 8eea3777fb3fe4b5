"""Questions to a container engine's local socket: Docker and Podman speak the same HTTP.

Docker Engine API, GET /containers/json.
"""

from __future__ import annotations

import http.client
import json
import socket
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from tcprism.names.workloads import UID, Told, pods, shown

_PATIENCE = 1.0  # seconds that an answer may take, all of it
_LONGEST = 1 << 24  # bytes of an answer


_MAKES_NO_SENSE = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RecursionError,
    http.client.HTTPException,
)


class _ImpatientSocket(socket.socket):
    """A socket with a deadline for all that is received, however often a byte comes."""

    deadline = 0.0

    def recv_into(self, *arguments: Any) -> int:
        """Receive what comes in the time that is left."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the answer takes too long")
        self.settimeout(left)
        return super().recv_into(*arguments)


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = engine = _ImpatientSocket(socket.AF_UNIX, socket.SOCK_STREAM)
        engine.deadline = time.monotonic() + _PATIENCE
        engine.settimeout(_PATIENCE)
        engine.connect(str(self._path))


def ask(engine: Path) -> dict[str, Told]:
    """Return what an engine tells of its containers by id.

    There is nothing if it does not answer as it should.
    """
    if not engine.is_socket():
        return {}
    try:
        with closing(_UnixConnection(engine)) as connection:
            connection.request("GET", "/containers/json")
            found = json.loads(connection.getresponse().read(_LONGEST))
        known = pods(each.get("Labels") or {} for each in found)
        return {str(each["Id"]): _told(each, known) for each in found}
    except _MAKES_NO_SENSE:
        return {}


def _told(container: dict[str, Any], known: dict[str, Told]) -> Told:
    names = container.get("Names")
    name = shown(str(names[0]).lstrip("/")) if names else None
    pod = known.get(str((container.get("Labels") or {}).get(UID)), Told())
    return pod._replace(name=name)
