"""Base64 of many payloads by one call over all of them."""

from binascii import b2a_base64

import numpy as np

from tcprism.events import Part

PADDING = ("", "", "==", "=")  # by the characters in the last group of four


def base64_payloads(part: Part) -> list[str]:
    """Return each message's captured payload in base64 (RFC 4648)."""
    if part.payload is None or len(part) == 0:
        return [""] * len(part)
    lengths = part.payload_lengths()
    longest = int(lengths.max())
    # Whole groups of three bytes, so that each row begins a group of its own.
    groups = -(-longest // 3)
    table = np.zeros((len(part), groups * 3), np.uint8)
    table[:, :longest] = part.payload[:, :longest]
    if (lengths < longest).any():
        table[np.arange(groups * 3) >= lengths[:, None]] = 0
    text = b2a_base64(table.tobytes(), newline=False).decode("ascii")
    starts = range(0, len(part) * groups * 4, groups * 4) if groups else [0] * len(part)
    characters = (lengths * 4 + 2) // 3
    return [
        text[start : start + count] + PADDING[count % 4]
        for start, count in zip(starts, characters.tolist(), strict=True)
    ]
