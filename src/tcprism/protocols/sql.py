"""SQL: what a statement does, without the values in it.

`PostgreSQL` and `MySQL` differ in how they quote: a `Dialect` each.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache, partial

SEEN_MAX = 1_024  # bytes of a statement; what is behind them is not read
RESOURCE_MAX = 200  # characters
PREPARED_BEFORE = "(prepared before)"

_CACHED = 2_048  # statements, each at most SEEN_MAX long
_NESTED_MAX = 8

_REST_OF_NUMBER = rb"(?:(?<=\d)|(?=\d))(?:(?<=0)[xX][0-9a-fA-F]+|[\d.]*(?:[eE][+-]?\d+)?)"
_REST_OF_STRING = rb"[^']*(?:''[^']*)*(?:'|\Z)"
_NUMBER = rb"(?<![\w$@.])[\d.]" + _REST_OF_NUMBER
# It begins with a set of characters, so that Python's engine looks for these first: thrice as fast.
_PLAIN = re.compile(
    rb"['\d.](?:(?<=')%s|(?<![\w$@.][\d.])(?<!')%s)" % (_REST_OF_STRING, _REST_OF_NUMBER)
)
_LISTED = r"\s*(?:-?\?|NULL|DEFAULT)(?:\s*,\s*(?:-?\?|NULL|DEFAULT))*\s*"
_LIST = re.compile(
    rf"\b(IN|VALUES)\s*\({_LISTED}(?:\)|,?\s*\Z)(?:\s*,\s*\({_LISTED}(?:\)|,?\s*\Z))*",
    re.IGNORECASE,
)
_ARRAY = re.compile(rf"\[{_LISTED}\]", re.IGNORECASE)
_SELECT_LIST = re.compile(r"\ASELECT (?:[^()]|\([^()]*\))*? FROM ", re.IGNORECASE)
_OPERATION = re.compile(r"(?:[\s(;]|/\*!\??)*([A-Za-z]+)")
_IN_PARENTHESES = re.compile(r"\([^()]*\)")
_AFTER_WITH = re.compile(r"\b(SELECT|INSERT|UPDATE|DELETE|MERGE|REPLACE|TABLE|VALUES)\b", re.I)
_SECRET = re.compile(rb"passw|identified|secret|crypt", re.IGNORECASE)

Statement = tuple[str, str]  # its operation, and its text without values
Describe = Callable[[bytes], Statement]


def _dialect(*, names: bytes, comments: bytes, strings: bytes, unusual: bytes) -> Describe:
    """Return what describes statements in which quoted names, comments and strings look so.

    Most have only numbers and plain strings in them; others have a comment or what is `unusual`.
    """
    every = re.compile(
        rb"(?P<name>%s)|(?P<comment>%s)|%s|%s" % (names, comments, strings, _NUMBER), re.DOTALL
    )
    rest = re.compile(unusual)

    def replacement(found: re.Match[bytes]) -> bytes:
        kind = found.lastgroup
        return found[0] if kind == "name" else b" " if kind == "comment" else b"?"

    @lru_cache(_CACHED)
    def describe(statement: bytes) -> Statement:
        if rest.search(statement) or b"--" in statement or b"/*" in statement:
            return _finished(every.sub(replacement, statement))
        return _finished(_PLAIN.sub(b"?", statement))

    return describe


@lru_cache(_CACHED)
def _finished(statement: bytes) -> Statement:
    text = " ".join(statement.decode("utf-8", "backslashreplace").split()).rstrip("; ")
    text = _ARRAY.sub("[?]", _LIST.sub(r"\1 (?)", text))
    return _operation(text), _bounded(text)


def _operation(text: str) -> str:
    found = _OPERATION.match(text)
    if not found:
        return ""
    word = found[1].upper()
    if word != "WITH":
        return word
    for _ in range(_NESTED_MAX):
        text, count = _IN_PARENTHESES.subn("", text)
        if not count:
            break
    main = _AFTER_WITH.search(text)
    return main[1].upper() if main else word


def _bounded(text: str) -> str:
    if len(text) > RESOURCE_MAX:
        text = _SELECT_LIST.sub("SELECT ... FROM ", text)
    return text if len(text) <= RESOURCE_MAX else text[: RESOURCE_MAX - 3] + "..."


def describer(dialect: Describe, show_values: bool) -> Describe:
    """Return what describes statements, with the values in them or without."""
    return partial(_as_written, dialect) if show_values else dialect


def _as_written(dialect: Describe, statement: bytes) -> Statement:
    operation, text = dialect(statement)
    if _SECRET.search(statement):  # one of the values may be a password
        return operation, text
    return operation, _bounded(" ".join(shown(statement, SEEN_MAX).split()))


def shown(name: bytes, most: int = RESOURCE_MAX) -> str:
    """Return a name as text."""
    return name[:most].decode("utf-8", "backslashreplace")


# A backslash escapes in E'...' only; $1 is a parameter, $tag$...$tag$ a string.
postgresql = _dialect(
    names=rb'"[^"]*(?:"|\Z)',
    comments=rb"/\*.*?(?:\*/|\Z)|--[^\n]*",
    strings=rb"(?<=\b[eE])'[^'\\]*(?:(?:\\.|\\\Z|'')[^'\\]*)*(?:'|\Z)|'"
    + _REST_OF_STRING
    + rb"|\$(?:\d+|(?P<tag>(?:[A-Za-z_]\w*)?)\$.*?(?:\$(?P=tag)\$|\Z))",
    unusual=rb'["$\\]',
)
# A double quote begins a string, a backslash escapes, # begins a comment; /*! is none.
mysql = _dialect(
    names=rb"`[^`]*(?:`|\Z)",
    comments=rb"/\*(?!!).*?(?:\*/|\Z)|(?:--(?=\s|\Z)|#)[^\n]*",
    strings=rb"'[^'\\]*(?:(?:\\.|\\\Z|'')[^'\\]*)*(?:'|\Z)"
    rb'|"[^"\\]*(?:(?:\\.|\\\Z|"")[^"\\]*)*(?:"|\Z)',
    unusual=rb'["`\\#]',
)
