"""Commands of Redis: how they are called in a line, and what they are about."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

RESOURCE_MAX = 200  # characters
_KEPT = 4  # arguments, the name included, that say what a command is about
_KEPT_MOST = 16

_NAMES = frozenset(
    b"ACL APPEND ASKING AUTH BGREWRITEAOF BGSAVE BITCOUNT BITFIELD BITFIELD_RO BITOP BITPOS BLMOVE"
    b" BLMPOP BLPOP BRPOP BRPOPLPUSH BZMPOP BZPOPMAX BZPOPMIN CLIENT CLUSTER COMMAND CONFIG COPY"
    b" DBSIZE DEBUG DECR DECRBY DEL DELEX DELIFEQ DIGEST DISCARD DUMP ECHO EVAL EVALSHA EVALSHA_RO"
    b" EVAL_RO EXEC EXISTS EXPIRE EXPIREAT EXPIRETIME FAILOVER FCALL FCALL_RO FLUSHALL FLUSHDB"
    b" FUNCTION GEOADD GEODIST GEOHASH GEOPOS GEORADIUS GEORADIUSBYMEMBER GEORADIUSBYMEMBER_RO"
    b" GEORADIUS_RO GEOSEARCH GEOSEARCHSTORE GET GETBIT GETDEL GETEX GETRANGE GETSET HDEL HELLO"
    b" HEXISTS HEXPIRE HEXPIREAT HEXPIRETIME HGET HGETALL HGETDEL HGETEX HINCRBY HINCRBYFLOAT HKEYS"
    b" HLEN HMGET HMSET HPERSIST HPEXPIRE HPEXPIREAT HPEXPIRETIME HPTTL HRANDFIELD HSCAN HSET"
    b" HSETEX HSETNX HSTRLEN HTTL HVALS INCR INCRBY INCRBYFLOAT INFO KEYS LASTSAVE LATENCY LCS"
    b" LINDEX LINSERT LLEN LMOVE LMPOP LOLWUT LPOP LPOS LPUSH LPUSHX LRANGE LREM LSET LTRIM MEMORY"
    b" MGET MIGRATE MODULE MONITOR MOVE MSET MSETEX MSETNX MULTI OBJECT PERSIST PEXPIRE PEXPIREAT"
    b" PEXPIRETIME PFADD PFCOUNT PFDEBUG PFMERGE PFSELFTEST PING PSETEX PSUBSCRIBE PSYNC PTTL"
    b" PUBLISH PUBSUB PUNSUBSCRIBE QUIT RANDOMKEY READONLY READWRITE RENAME RENAMENX REPLCONF"
    b" REPLICAOF RESET RESTORE RESTORE-ASKING ROLE RPOP RPOPLPUSH RPUSH RPUSHX SADD SAVE SCAN SCARD"
    b" SCRIPT SDIFF SDIFFSTORE SELECT SENTINEL SET SETBIT SETEX SETNX SETRANGE SHUTDOWN SINTER"
    b" SINTERCARD SINTERSTORE SISMEMBER SLAVEOF SLOWLOG SMEMBERS SMISMEMBER SMOVE SORT SORT_RO SPOP"
    b" SPUBLISH SRANDMEMBER SREM SSCAN SSUBSCRIBE STRLEN SUBSCRIBE SUBSTR SUNION SUNIONSTORE"
    b" SUNSUBSCRIBE SWAPDB SYNC TIME TOUCH TTL TYPE UNLINK UNSUBSCRIBE UNWATCH VADD VCARD VDIM VEMB"
    b" VGETATTR VINFO VLINKS VRANDMEMBER VREM VSETATTR VSIM WAIT WAITAOF WATCH XACK XACKDEL XADD"
    b" XAUTOCLAIM XCLAIM XDEL XDELEX XGROUP XINFO XLEN XPENDING XRANGE XREAD XREADGROUP XREVRANGE"
    b" XSETID XTRIM ZADD ZCARD ZCOUNT ZDIFF ZDIFFSTORE ZINCRBY ZINTER ZINTERCARD ZINTERSTORE"
    b" ZLEXCOUNT ZMPOP ZMSCORE ZPOPMAX ZPOPMIN ZRANDMEMBER ZRANGE ZRANGEBYLEX ZRANGEBYSCORE"
    b" ZRANGESTORE ZRANK ZREM ZREMRANGEBYLEX ZREMRANGEBYRANK ZREMRANGEBYSCORE ZREVRANGE"
    b" ZREVRANGEBYLEX ZREVRANGEBYSCORE ZREVRANK ZSCAN ZSCORE ZUNION ZUNIONSTORE".split()
)
_MODULES = (b"BF.", b"CF.", b"CMS.", b"FT.", b"GRAPH.", b"JSON.", b"TDIGEST.", b"TOPK.", b"TS.")

# How many words those have at most that are words of other lists, too: CONFIG GET has "save".
_MOST = {
    b"AUTH": 3, b"ECHO": 2, b"HELLO": 7, b"KEYS": 2, b"MOVE": 3, b"ROLE": 1, b"SAVE": 1,
    b"TIME": 1, b"TYPE": 2, b"WAIT": 3,
}  # fmt: skip
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


def is_command(name: bytes, size: int) -> bool:
    """Say whether Redis (8.4, Valkey 9) or a module of it has a command with so many words."""
    upper = name.upper()
    if size > _MOST.get(upper, size):
        return False
    return upper in _NAMES or upper.startswith(_MODULES)


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
