"""WebSocket (RFC 6455): what follows an upgrade of HTTP/1. Frames are messages of either end."""

from __future__ import annotations

from tcprism.protocols import Parser


class WebSocket(Parser):
    """Passes over frames: they are no requests."""

    protocol = "websocket"

    def parse(self, side: int, data: bytes, at: int) -> int:
        """Pass over a frame."""
        return 1 << 62

    def find(self, side: int, data: bytes) -> int:
        """Any place is as good."""
        return 0
