"""What an HTTP request is for, as a line of text."""

from __future__ import annotations

from functools import lru_cache

LONGEST = 200


@lru_cache(1024)  # most come again
def resource(target: bytes, show_values: bool) -> str:
    """Return a target without the values in its query, unless they are to be shown."""
    text = target.decode("ascii", "backslashreplace")
    if not show_values:
        path, mark, _ = text.partition("?")
        text = path + mark
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
