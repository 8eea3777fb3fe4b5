r"""Untrusted bytes as text: printable ASCII as it is, all else as \xNN, the backslash as \\.

The text is plain ASCII without a control character, and no two byte strings share a text.

Many payloads are escaped with a few passes over all of them at once. Between those passes a byte
that cannot be in the text stands for the end of a payload and another for an escaped newline.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tcprism.events.part import Part

END = 0x7F
BREAK = 0xFE
PAD = 0xFF

CHUNK_BYTES = 1 << 16  # payload bytes escaped at once: stays in the processor's cache
FEW_CONTROLS = 6  # kinds of control character that are replaced one by one
SELDOM = 4  # more than one byte in so many, as far as a sample shows, and all are looked up
SAMPLED = 16

Bytes = NDArray[np.uint8]
Lengths = NDArray[np.int64]


def _escaped_byte(value: int) -> bytes:
    if value == ord("\\"):
        return rb"\\"
    return bytes([value]) if 0x20 <= value < 0x7F else b"\\x%02x" % value


def escape(data: bytes) -> str:
    """Return the bytes as text."""
    if data.isascii() and b"\\" not in data and (text := data.decode("ascii")).isprintable():
        return text
    return b"".join(map(_escaped_byte, data)).decode("ascii")


def escape_text(text: str) -> str:
    """Return text that may have been escaped before: all but printable ASCII becomes bytes.

    A backslash stays as it is.
    """
    if text.isascii() and text.isprintable():
        return text
    return escape(text.encode(errors="surrogatepass")).replace(r"\\", "\\")


def _quoted(text: bytes) -> bytes:
    """Return escaped text as it stands between the quotes in JSON."""
    return text.replace(b"\\", b"\\\\").replace(b'"', b'\\"')


@dataclass(frozen=True, slots=True)
class _Form:
    """How payloads are written: `units` has each byte's characters, `finish` does the rest.

    `after_replacing` does it for text in which only controls and backslashes have been replaced.
    """

    units: NDArray[np.void]
    finish: Callable[[bytes], bytes]
    after_replacing: Callable[[bytes], bytes]


def _units(unit: Callable[[int], bytes]) -> NDArray[np.void]:
    """Return one array element a byte value: its characters, padded with NUL."""
    characters = list(map(unit, range(256)))
    width = max(map(len, characters))
    return np.array(characters, f"S{width}").view(f"V{width}")


def escape_payloads(part: Part) -> list[str]:
    """Return the text of each message's payload."""
    return _escape_rows(part, _PLAIN)


def escape_payloads_in_lines(part: Part, indent: str) -> list[str]:
    r"""Return the text of each message's payload, the text going on in a new line after a \x0a."""
    line_break = b"\\x0a\n" + indent.encode("ascii")

    def finish(text: bytes) -> bytes:
        last_breaks = text.replace(bytes([BREAK, END]), rb"\x0a" + bytes([END]))
        return last_breaks.replace(bytes([BREAK]), line_break)

    return _escape_rows(part, _Form(_BREAKING_UNITS, finish, finish))


def escape_payloads_for_json(part: Part) -> list[str]:
    """Return the text of each message's payload as it stands between the quotes in JSON."""
    return _escape_rows(part, _JSON)


_PLAIN = _Form(_units(_escaped_byte), bytes, lambda text: text.replace(bytes([BREAK]), rb"\x0a"))
_JSON = _Form(
    _units(lambda value: _quoted(_escaped_byte(value))),
    bytes,
    lambda text: _quoted(text).replace(bytes([BREAK]), rb"\\x0a"),
)
_BREAKING_UNITS = _units(
    lambda value: bytes([BREAK]) if value == ord("\n") else _escaped_byte(value)
)


def _escape_rows(part: Part, form: _Form) -> list[str]:
    if part.payload is None:
        return [""] * len(part)
    texts: list[str] = []
    for payload, lengths in _chunks(part.payload, part.payload_lengths()):
        replaced = _escape_text(payload, lengths)
        if replaced is None:
            escaped = form.finish(_escape_any(payload, lengths, form.units))
        else:
            escaped = form.after_replacing(replaced)
        texts += escaped.decode("ascii").split(chr(END))[:-1]
    return texts


def _chunks(payload: Bytes, lengths: Lengths) -> Iterator[tuple[Bytes, Lengths]]:
    step = max(1, CHUNK_BYTES // payload.shape[1])
    for start in range(0, len(payload), step):
        chunk = lengths[start : start + step]
        yield payload[start : start + step, : int(chunk.max())], chunk


def _escape_text(payload: Bytes, lengths: Lengths) -> bytes | None:
    """Escape payloads that are ASCII with few control characters; None when they are not.

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
    sample = table[:: len(table) // SAMPLED + 1]
    if np.count_nonzero(sample < ord(" ")) * SELDOM > sample.size:
        return None
    text = table.tobytes().translate(None, bytes([PAD])) if pads else table.tobytes()
    text = text.replace(b"\\", rb"\\").replace(b"\n", bytes([BREAK]))
    for _ in range(FEW_CONTROLS):
        lowest = int(np.frombuffer(text, np.uint8).min())
        if lowest >= 0x20:
            return text
        text = text.replace(bytes([lowest]), _escaped_byte(lowest))
    return None


def _escape_any(payload: Bytes, lengths: Lengths, units: NDArray[np.void]) -> bytes:
    """Escape any payloads: look each byte up, delete the NULs between."""
    rows, width = payload.shape
    table = np.zeros((rows, width + 1), units.dtype)
    table[:, :-1] = units.take(payload, mode="clip")  # clip: no bounds check
    if (lengths < width).any():
        table[:, :-1][np.arange(width) >= lengths[:, None]] = np.void(bytes(units.itemsize))
    characters = table.view(np.uint8)
    characters[:, -1] = END
    return table.tobytes().translate(None, b"\0")
