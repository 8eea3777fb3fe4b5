r"""Untrusted bytes as text: printable ASCII as it is, all else as \xNN, the backslash as \\.

The text is plain ASCII without a control character, and no two byte strings share a text.

Many payloads are escaped with a few passes over all of them at once. Between those passes a byte
that cannot be in the text stands for the end of a payload and another for an escaped newline.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from tcprism.events.part import Part

END = 0x7F
BREAK = 0xFE
PAD = 0xFF

CHUNK_BYTES = 1 << 16  # payload bytes escaped at once: stays in the processor's cache
FEW_CONTROLS = 6  # kinds of control character that are replaced one by one

Bytes = NDArray[np.uint8]
Lengths = NDArray[np.int64]
Finish = Callable[[bytes], bytes]


def _escaped_byte(value: int) -> bytes:
    if value == ord("\\"):
        return rb"\\"
    return bytes([value]) if 0x20 <= value < 0x7F else b"\\x%02x" % value


def _unit(value: int) -> bytes:
    return bytes([BREAK]) if value == ord("\n") else _escaped_byte(value)


# One array element a byte value: up to four characters, padded with NUL.
_UNITS = np.array([_unit(value) for value in range(256)], "S4").view(np.uint32)
_END_UNIT = np.array([bytes([END])], "S4").view(np.uint32)[0]


def escape(data: bytes) -> str:
    """Return the bytes as text."""
    return b"".join(map(_escaped_byte, data)).decode("ascii")


def escape_payloads(part: Part) -> list[str]:
    """Return the text of each message's payload."""
    return _escape_rows(part, lambda text: text.replace(bytes([BREAK]), rb"\x0a"))


def escape_payloads_in_lines(part: Part, indent: str) -> list[str]:
    r"""Return the text of each message's payload, the text going on in a new line after a \x0a."""
    line_break = b"\\x0a\n" + indent.encode("ascii")

    def finish(text: bytes) -> bytes:
        last_breaks = text.replace(bytes([BREAK, END]), rb"\x0a" + bytes([END]))
        return last_breaks.replace(bytes([BREAK]), line_break)

    return _escape_rows(part, finish)


def escape_payloads_for_json(part: Part) -> list[str]:
    """Return the text of each message's payload as it stands between the quotes in JSON."""

    def finish(text: bytes) -> bytes:
        quoted = text.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
        return quoted.replace(bytes([BREAK]), rb"\\x0a")

    return _escape_rows(part, finish)


def _escape_rows(part: Part, finish: Finish) -> list[str]:
    if part.payload is None:
        return [""] * len(part)
    texts: list[str] = []
    for payload, lengths in _chunks(part.payload, part.payload_lengths()):
        escaped = _escape_text(payload, lengths) or _escape_any(payload, lengths)
        texts += finish(escaped).decode("ascii").split(chr(END))[:-1]
    return texts


def _chunks(payload: Bytes, lengths: Lengths) -> Iterator[tuple[Bytes, Lengths]]:
    step = max(1, CHUNK_BYTES // payload.shape[1])
    for start in range(0, len(payload), step):
        chunk = lengths[start : start + step]
        yield payload[start : start + step, : int(chunk.max())], chunk


def _escape_text(payload: Bytes, lengths: Lengths) -> bytes | None:
    """Escape payloads that are ASCII with few kinds of control character; None when they are not.

    Replacing each kind throughout takes half the time of `_escape_any`.
    """
    rows, width = payload.shape
    table = np.full((rows, width + 1), END, np.uint8)
    table[:, :-1] = payload
    pads = rows * width - int(lengths.sum())
    if pads:
        table[:, :-1][np.arange(width) >= lengths[:, None]] = PAD
    if np.count_nonzero(table >= END) != rows + pads:
        return None
    text = table.tobytes().translate(None, bytes([PAD])) if pads else table.tobytes()
    text = text.replace(b"\\", rb"\\").replace(b"\n", bytes([BREAK]))
    for _ in range(FEW_CONTROLS):
        lowest = int(np.frombuffer(text, np.uint8).min())
        if lowest >= 0x20:
            return text
        text = text.replace(bytes([lowest]), _escaped_byte(lowest))
    return None


def _escape_any(payload: Bytes, lengths: Lengths) -> bytes:
    """Escape any payloads: look each byte up as a unit of four, delete the NULs between."""
    rows, width = payload.shape
    table = np.full((rows, width + 1), _END_UNIT)
    table[:, :-1] = _UNITS.take(payload, mode="clip")  # clip: no bounds check
    if (lengths < width).any():
        table[:, :-1][np.arange(width) >= lengths[:, None]] = 0
    return table.tobytes().translate(None, b"\0")
