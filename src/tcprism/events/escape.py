r"""Untrusted bytes as text: printable ASCII as it is, all else as \xNN, the backslash as \\.

The text is plain ASCII without a control character, and no two byte strings share a text.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from tcprism.events.part import Part

NEWLINE = ord("\n")
CHUNK_BYTES = 1 << 16  # payload bytes escaped at once; the working set is four times that

# Control characters never appear in the text, so they can mark places in it for a while.
BREAK_MARK = b"\x01"
END_MARK = b"\x02"


def _escaped_byte(value: int) -> bytes:
    if value == ord("\\"):
        return rb"\\"
    return bytes([value]) if 0x20 <= value < 0x7F else b"\\x%02x" % value


# One array element a byte value: up to four characters, padded with NUL.
_UNITS = np.array([_escaped_byte(value) for value in range(256)], "S4").view(np.uint32)
_UNITS_BROKEN = _UNITS.copy()
_UNITS_BROKEN[NEWLINE] = np.array([BREAK_MARK], "S4").view(np.uint32)[0]
_END = np.array([END_MARK], "S4").view(np.uint32)[0]


def escape(data: bytes) -> str:
    """Return the bytes as text."""
    return b"".join(map(_escaped_byte, data)).decode("ascii")


def escape_payloads(part: Part) -> list[str]:
    """Return the text of each message's payload."""
    return _escape_rows(part, _UNITS, lambda text: text)


def escape_payloads_in_lines(part: Part, indent: str) -> list[str]:
    r"""Return the text of each message's payload, the text going on in a new line after a \x0a."""
    line_break = b"\\x0a\n" + indent.encode("ascii")

    def break_lines(text: bytes) -> bytes:
        last = text.replace(BREAK_MARK + END_MARK, b"\\x0a" + END_MARK)
        return last.replace(BREAK_MARK, line_break)

    return _escape_rows(part, _UNITS_BROKEN, break_lines)


def escape_payloads_for_json(part: Part) -> list[str]:
    """Return the text of each message's payload as it stands between the quotes in JSON."""
    return _escape_rows(
        part, _UNITS, lambda text: text.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    )


def _escape_rows(
    part: Part, units: NDArray[np.uint32], finish: Callable[[bytes], bytes]
) -> list[str]:
    """Escape many payloads with a few passes over all of them, whatever is in them.

    Each byte is looked up as a unit of four characters, and the NULs between are deleted.
    """
    if part.payload is None:
        return [""] * len(part)
    texts: list[str] = []
    for payload, lengths in _chunks(part.payload, part.payload_lengths()):
        table = np.full((len(payload), payload.shape[1] + 1), _END)
        table[:, :-1] = units.take(payload, mode="clip")  # clip: no bounds check
        if (lengths < payload.shape[1]).any():
            table[:, :-1][np.arange(payload.shape[1]) >= lengths[:, None]] = 0
        text = finish(table.tobytes().translate(None, b"\0"))
        texts += text.decode("ascii").split(END_MARK.decode("ascii"))[:-1]
    return texts


def _chunks(
    payload: NDArray[np.uint8], lengths: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    step = max(1, CHUNK_BYTES // payload.shape[1])
    for start in range(0, len(payload), step):
        chunk = lengths[start : start + step]
        yield payload[start : start + step, : int(chunk.max())], chunk
