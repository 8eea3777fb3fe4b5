"""Questions to a container engine's local socket: Docker and Podman speak the same HTTP.

Docker Engine API, GET /containers/json.
"""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path

from tcprism.events.escape import escape

_PATIENCE = 1.0  # seconds to wait for an engine


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_PATIENCE)
        self.sock.connect(str(self._path))


def ask(engine: Path) -> dict[str, str]:
    """Return the names of an engine's containers by id; none if it does not answer as it should."""
    if not engine.is_socket():
        return {}
    try:
        connection = _UnixConnection(engine)
        connection.request("GET", "/containers/json")
        found = json.loads(connection.getresponse().read(1 << 24))
        return {
            str(each["Id"]): escape(str(each["Names"][0]).lstrip("/").encode())
            for each in found
            if each.get("Names")
        }
    except (OSError, ValueError, LookupError, TypeError, AttributeError, http.client.HTTPException):
        return {}
