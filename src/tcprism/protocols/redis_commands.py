"""Commands of Redis: how they are called in a line, and what they are about."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

RESOURCE_MAX = 200  # characters
_KEPT = 4  # arguments, the name included, that say what a command is about
_KEPT_MOST = 16

# Those whose second word belongs to the name.
_CONTAINERS = frozenset(
    b"ACL CLIENT CLUSTER COMMAND CONFIG DEBUG FUNCTION LATENCY MEMORY MODULE OBJECT PUBSUB SCRIPT"
    b" SENTINEL SLOWLOG XGROUP XINFO".split()
)
# Where a command has its first key; 0: it has none that is no value.
_PLACES = {
    **dict.fromkeys(
        b"ASKING AUTH BGREWRITEAOF BGSAVE DBSIZE DEBUG DISCARD ECHO EVAL EVAL_RO EXEC FAILOVER"
        b" FLUSHALL FLUSHDB HELLO INFO LASTSAVE LOLWUT MONITOR MULTI PING PSYNC QUIT READONLY"
        b" READWRITE REPLCONF RESET ROLE SAVE SHUTDOWN SWAPDB SYNC TIME UNWATCH WAIT"
        b" WAITAOF".split(),
        0,
    ),
    **dict.fromkeys(b"BITOP LMPOP SINTERCARD ZDIFF ZINTER ZINTERCARD ZMPOP ZUNION".split(), 2),
    **dict.fromkeys(b"BLMPOP BZMPOP MIGRATE".split(), 3),
}
_SOURCES = frozenset(("DEBUG", "FUNCTION LOAD", "FUNCTION RESTORE", "SCRIPT LOAD"))
_SECRETS = frozenset(
    ("AUTH", "HELLO", "MIGRATE", "ACL SETUSER", "CONFIG SET", "REPLCONF", "SENTINEL SET")
)


class Command(NamedTuple):
    """What is known of a command by its name: `place` is its key's, `kept` how many arguments.

    `plain`: that is all there is to know.
    """

    method: str
    place: int
    kept: int
    plain: bool


@lru_cache(1024)
def command(name: bytes) -> Command:
    """Return what is known of the command of a name."""
    upper = name.upper()
    if upper in _CONTAINERS:
        return Command(upper.decode(), 2, _KEPT, False)
    stream = upper in (b"XREAD", b"XREADGROUP")
    plain = not stream and not upper.startswith(b"EVAL")
    place = _PLACES.get(upper, 1)
    kept = place + 1 if plain else _KEPT_MOST if stream else _KEPT
    return Command(upper.decode(), place, kept, plain)


def describe(arguments: Sequence[bytes], show_values: bool) -> tuple[str, str]:
    """Return method and resource of a command, whose arguments begin with its name."""
    method, place, _, plain = command(arguments[0])
    if plain and not show_values:
        return method, _text(arguments[place]) if 0 < place < len(arguments) else ""
    if not plain and place == 2 and len(arguments) > 1:
        method = f"{method} {_text(arguments[1]).upper()}"[:40]
        place = 0 if method in _SOURCES else 2
    elif method.startswith("EVAL"):
        place = _place_of_script(method, arguments)
    elif method.startswith("XREAD"):
        place = _place_of_stream(arguments)
    if show_values and method not in _SECRETS:
        words = arguments[1 + method.count(" ") :]
        return method, " ".join(map(_text, words))[:RESOURCE_MAX]
    if not place or place >= len(arguments):
        return method, ""
    return method, _text(arguments[place])


def kept(name: bytes, show_values: bool) -> int:
    """Return how many arguments of a command are needed to describe it, its name included."""
    return _KEPT_MOST if show_values else command(name).kept


def _place_of_script(method: str, arguments: Sequence[bytes]) -> int:
    """Return the place of the digest, or of the first key of a script that is given itself."""
    if method.startswith("EVALSHA"):
        return 1
    return 3 if len(arguments) > 2 and arguments[2] != b"0" else 0


def _place_of_stream(arguments: Sequence[bytes]) -> int:
    words = [argument.upper() for argument in arguments]
    return words.index(b"STREAMS") + 1 if b"STREAMS" in words else 0


def _text(argument: bytes) -> str:
    return argument[:RESOURCE_MAX].decode("utf-8", "backslashreplace")[:RESOURCE_MAX]
