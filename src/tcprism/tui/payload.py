"""Payload for the eye: as text with line breaks, or in hexadecimal."""

from __future__ import annotations

from textwrap import dedent

from tcprism.events.escape import escape
from tcprism.sinks.text import hex_dump

_NARROW = 8  # bytes of a line in hexadecimal


def payload_text(payload: bytes, as_hex: bool) -> str:
    """Return printable lines."""
    if as_hex:
        return dedent(hex_dump(payload, _NARROW)).rstrip()
    return "\n".join(escape(line.removesuffix(b"\r")) for line in payload.split(b"\n"))
