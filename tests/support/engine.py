"""A container engine's local socket, as far as it is asked for anything."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"


def body(found: Any) -> bytes:
    """Return an answer with something as JSON."""
    text = json.dumps(found).encode()
    return HEAD % len(text) + text


class Engine:
    """An engine that answers what it is told to."""

    def __init__(self, path: Path) -> None:
        self.path, self.answer = path, b""
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                asker, _ = self._listener.accept()
                with asker, suppress(OSError):
                    asker.recv(1 << 16)
                    asker.sendall(self.answer)

    def close(self) -> None:
        """Answer no more."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
