"""Base64 of many payloads at once."""

from itertools import product

import numpy as np
from numpy.typing import NDArray

from tcprism.events import Part

ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"  # RFC 4648
UNUSED = 0xFF  # stands where a shorter payload has no characters
END = ord("\n")

# The two characters of each 12 bits.
_PAIRS = np.array([bytes(pair) for pair in product(ALPHABET, repeat=2)], "S2").view(np.uint16)


def base64_payloads(part: Part, before: str = "", after: str = "") -> list[str]:
    """Return each message's captured payload in base64, between two texts."""
    lengths = part.payload_lengths()
    longest = int(lengths.max(initial=0))
    if part.payload is None or longest == 0:
        return [before + after] * len(part)
    characters = _encode(part.payload[:, :longest], lengths)
    head, tail = (np.frombuffer(text.encode("ascii"), np.uint8) for text in (before, after))
    table = np.empty((len(part), len(head) + characters.shape[1] + len(tail) + 1), np.uint8)
    table[:, : len(head)] = head
    table[:, len(head) : len(head) + characters.shape[1]] = characters
    table[:, len(head) + characters.shape[1] : -1] = tail
    table[:, -1] = END
    text = table.tobytes()
    if (lengths < longest).any():
        text = text.translate(None, bytes([UNUSED]))
    return text.decode("ascii").split(chr(END))[:-1]


def _encode(payload: NDArray[np.uint8], lengths: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return a table of characters, four for each three bytes of the longest payload."""
    rows, longest = payload.shape
    groups = -(-longest // 3)
    octets = np.zeros((rows, groups * 3), np.uint8)
    octets[:, :longest] = payload
    if (lengths < longest).any():
        octets[np.arange(groups * 3) >= lengths[:, None]] = 0
    first, second, third = (octets[:, place::3].astype(np.uint16) for place in range(3))
    pairs = np.empty((rows, groups, 2), np.uint16)
    pairs[:, :, 0] = _PAIRS.take(first << 4 | second >> 4)
    pairs[:, :, 1] = _PAIRS.take((second & 15) << 8 | third)
    characters = pairs.view(np.uint8).reshape(rows, groups * 4)
    places = np.arange(groups * 4)
    tail = slice(max(0, 4 * (int(lengths.min()) // 3)), None)
    ends = lengths[:, None]
    characters[:, tail][places[tail] >= -(-ends * 4 // 3)] = ord("=")
    characters[:, tail][places[tail] >= -(-ends // 3) * 4] = UNUSED
    return characters
