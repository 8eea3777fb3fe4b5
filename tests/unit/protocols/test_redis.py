"""Redis: what a real server counted, and what RESP says of pipelines, messages and gaps."""

from collections import Counter

import pytest

from tcprism.protocols import Exchange
from tcprism.protocols.redis import REDIS

from .talk import CLIENT, SERVER, Said, Talk, exchanges, recorded, told

OK = b"+OK\r\n"

# Redis 7.0's INFO commandstats after the recorded conversations: calls and rejected ones, without
# what other connections did (a SET, PUBLISH) and an inline PING and SET that were cut off from the
# beginning. LPUSH failed once alone and once inside EXEC.
CALLS = {
    "SMEMBERS": 1, "TYPE": 1, "CONFIG SET": 1, "CONFIG GET": 1, "PSUBSCRIBE": 1, "SUBSCRIBE": 2,
    "ZSCORE": 1, "ZADD": 1, "EXEC": 3, "EVAL": 1, "XREAD": 1, "SET": 3, "HGETALL": 25, "HELLO": 1,
    "INCR": 2, "OBJECT ENCODING": 1, "CLIENT REPLY": 3, "CLIENT TRACKING": 1, "PING": 3, "GET": 6,
    "HSET": 24, "UNSUBSCRIBE": 2, "XADD": 1, "PUNSUBSCRIBE": 1, "LPUSH": 3, "MULTI": 3, "RESET": 1,
    "NOSUCH": 1,
}  # fmt: skip
FAILED = {"LPUSH": 1, "EXEC": 2, "INCR": 1, "NOSUCH": 1}
MESSAGES = [("invalidate", "greeting"), ("message", "news"), ("message", "sport")]
MESSAGES += [("message", "a"), ("pmessage", "news")]


def command(*words: str) -> bytes:
    head = b"*%d\r\n" % len(words)
    return head + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in map(str.encode, words))


def served() -> list[Exchange]:
    return [one for said in recorded("redis.txt") for one in exchanges(said)]


def test_what_the_server_counted() -> None:
    found = served()
    asked = [one for one in found if one.begin is not None]
    assert Counter(one.method for one in asked) == CALLS
    assert Counter(one.method for one in asked if one.failed) == FAILED
    unasked = [(one.method, one.resource) for one in found if one.begin is None]
    assert unasked == MESSAGES
    assert not any(one.gap or one.response_end is None for one in asked if one.answered)


def test_replies_that_a_client_has_turned_off() -> None:
    unanswered = [one for one in served() if one.begin is not None and not one.answered]
    assert told(unanswered) == [
        ("CLIENT REPLY", "OFF", ""),
        ("SET", "quiet", ""),
        ("CLIENT REPLY", "SKIP", ""),
        ("SET", "quiet", ""),
    ]


@pytest.mark.parametrize(
    ("words", "method", "resource", "values"),
    [
        (("set", "key", "secret"), "SET", "key", "key secret"),
        (("GET", "käse"), "GET", "käse", "käse"),
        (("AUTH", "user", "secret"), "AUTH", "", ""),
        (("HELLO", "3", "AUTH", "user", "secret"), "HELLO", "", ""),
        (("CONFIG", "SET", "requirepass", "secret"), "CONFIG SET", "requirepass", "requirepass"),
        (("ACL", "SETUSER", "joe", ">secret"), "ACL SETUSER", "joe", "joe"),
        (("ECHO", "secret"), "ECHO", "", "secret"),
        (("OBJECT", "FREQ", "key"), "OBJECT FREQ", "key", "key"),
        (("SCRIPT", "LOAD", "return 'secret'"), "SCRIPT LOAD", "", "return 'secret'"),
        (("EVAL", "return 1", "1", "key", "secret"), "EVAL", "key", "return 1 1 key secret"),
        (("EVAL", "return 1", "0", "secret"), "EVAL", "", "return 1 0 secret"),
        (("EVALSHA", "abc", "1", "key"), "EVALSHA", "abc", "abc 1 key"),
        (("XREAD", "COUNT", "1", "STREAMS", "s", "0"), "XREAD", "s", "COUNT 1 STREAMS s 0"),
        (("BITOP", "AND", "to", "from"), "BITOP", "to", "AND to from"),
    ],
)
def test_resources(words: tuple[str, ...], method: str, resource: str, values: str) -> None:
    said = [(CLIENT, command(*words)), (SERVER, OK)]
    assert told(exchanges(said)) == [(method, resource, "OK")]
    assert told(exchanges(said, show_values=True)) == [(method, values, "OK")]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ([(CLIENT, b"PING\r\n"), (SERVER, b"+PONG\r\n")], [("PING", "", "PONG")]),
        ([(CLIENT, b"get key\n"), (SERVER, b"$2\r\nhi\r\n")], [("GET", "key", "")]),
        (
            [(CLIENT, b"incr n\r\nEXISTS n\r\n"), (SERVER, b":1\r\n:1\r\n")],
            [("INCR", "n", ""), ("EXISTS", "n", "")],
        ),
    ],
)
def test_inline_commands_alone(said: list[Said], expected: list[tuple[str, str, str]]) -> None:
    """As a health check or telnet sends them."""
    found = exchanges(said)
    assert told(found) == expected
    assert {one.protocol for one in found} == {"redis"}


def test_inline_commands_follow_others() -> None:
    said = [(CLIENT, command("GET", "a")), (SERVER, b"$-1\r\n")]
    said += [(CLIENT, b"set key secret\r\n\r\nPING\n"), (SERVER, OK + b"+PONG\r\n")]
    assert told(exchanges(said, piece=2)) == [
        ("GET", "a", "nil"), ("SET", "key", "OK"), ("PING", "", "PONG"),
    ]  # fmt: skip


def test_offsets_of_a_pipeline_are_exact() -> None:
    commands = [command("GET", f"key:{number}") for number in range(5)]
    replies = [
        b"$-1\r\n",
        b"$3\r\nabc\r\n",
        b"$0\r\n\r\n",
        b"-MOVED 1 a:1\r\n",
        b"*1\r\n*1\r\n:1\r\n",
    ]
    found = exchanges([(CLIENT, b"".join(commands)), (SERVER, b"".join(replies))], piece=3)
    at, there = 1000, 5000
    for one, asked, replied in zip(found, commands, replies, strict=True):
        assert (one.begin, one.end) == (at, at + len(asked))
        assert (one.response_begin, one.response_end) == (there, there + len(replied))
        at, there = one.end or 0, one.response_end or 0
    assert [one.status for one in found] == ["nil", "", "", "MOVED", ""]


def test_long_values_need_not_be_captured() -> None:
    talk = Talk([REDIS], captured=100)
    for _ in range(3):
        talk.say(CLIENT, command("SET", "key", "x" * 100_000))
        talk.say(SERVER, OK)
        talk.say(CLIENT, command("GET", "key"))
        talk.say(SERVER, b"$100000\r\n" + bytes(100_000) + b"\r\n")
    found = talk.end()
    assert told(found) == [("SET", "key", "OK"), ("GET", "key", "")] * 3
    assert not any(one.gap for one in found)
    assert not talk.conversation.gaps


def test_a_long_request_may_come_before_any_reply() -> None:
    talk = Talk()
    pieces = command("SET", "key", "x" * 100_000)
    talk.say(CLIENT, *(pieces[at : at + 5000] for at in range(0, len(pieces), 5000)))
    talk.say(SERVER, OK)
    (found,) = talk.end()
    assert (found.end, found.status, found.gap) == (1000 + len(pieces), "OK", False)


def test_a_cut_command_has_its_reply_and_the_next_too() -> None:
    talk = Talk([REDIS], captured=100)
    for key in ("a", "b"):
        talk.say(CLIENT, command("MSET", key, *("value" for _ in range(99))))
        talk.say(SERVER, OK)
        talk.say(CLIENT, command("GET", key))
        talk.say(SERVER, b"$-1\r\n")
    found = talk.end()
    assert told(found) == [
        ("MSET", "a", "OK"), ("GET", "a", "nil"), ("MSET", "b", "OK"), ("GET", "b", "nil"),
    ]  # fmt: skip
    assert [one.gap for one in found] == [True, False, True, False]


def test_a_cut_reply_ends_before_the_next_command() -> None:
    talk = Talk([REDIS], captured=100)
    items = b"*100\r\n" + b"$5\r\nhello\r\n" * 100
    talk.say(CLIENT, command("LRANGE", "list", "0", "-1"))
    talk.say(SERVER, items[:600], items[600:])
    talk.say(CLIENT, command("GET", "key"))
    talk.say(SERVER, b"$-1\r\n")
    cut, whole = talk.end()
    assert (cut.method, cut.gap, cut.response_end) == ("LRANGE", True, 5000 + len(items))
    assert (whole.method, whole.gap, whole.status) == ("GET", False, "nil")


def test_after_a_gap_nothing_is_paired_if_the_client_never_waits() -> None:
    talk = Talk([REDIS], captured=100)
    long = b"*100\r\n" + b"$5\r\nhello\r\n" * 100
    talk.say(CLIENT, command("GET", "1"), command("GET", "2"))
    talk.say(SERVER, b"$1\r\n1\r\n")
    talk.say(CLIENT, command("LRANGE", "list", "0", "-1"))
    talk.say(CLIENT, command("GET", "3"))
    talk.say(SERVER, b"$1\r\n2\r\n", long)
    talk.say(CLIENT, command("GET", "4"))
    talk.say(SERVER, b"$1\r\n3\r\n")
    talk.say(SERVER, b"$1\r\n4\r\n")
    found = talk.end()
    assert [one.gap for one in found] == [False, False, True, True, True]
    assert [one.response_begin is None for one in found[-2:]] == [True, True]


def test_monitor_and_replication_are_no_replies() -> None:
    line = b'+1700000000.1 [0 127.0.0.1:1] "SET" "secret" "1"\r\n'
    said = [(CLIENT, command("MONITOR")), (SERVER, OK + line), (CLIENT, command("RESET"))]
    said += [(SERVER, line + b"+RESET\r\n"), (CLIENT, command("PSYNC", "?", "-1"))]
    said += [(SERVER, b"+FULLRESYNC 1 0\r\n$5\r\nREDIS"), (SERVER, command("SET", "a", "b"))]
    said += [(CLIENT, command("REPLCONF", "ACK", "0"))]
    assert told(exchanges(said)) == [
        ("MONITOR", "", "OK"), ("RESET", "", "RESET"), ("PSYNC", "", "FULLRESYNC"),
    ]  # fmt: skip


@pytest.mark.parametrize("client", [CLIENT, SERVER])
def test_a_reply_that_looks_like_a_command_does_not_swap_the_ends(client: int) -> None:
    reply = b"*2\r\n$3\r\nabc\r\n$3\r\ndef\r\n"
    talk = Talk([REDIS])
    talk.say(1 - client, reply)
    talk.say(client, command("LRANGE", "list", "0", "-1"))
    talk.say(1 - client, reply)
    talk.say(client, command("GET", "key"))
    talk.say(1 - client, b"$-1\r\n")
    assert talk.conversation.client == client
    assert told(talk.end())[-1] == ("GET", "key", "nil")


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        (b"USER joe\r\n", b"+OK\r\n"),
        (b"QUIT\r\n", b"+OK\r\n"),
        (b"AUTH PLAIN\r\n", b"+ \r\n"),
        (b"STAT\r\n", b"+OK 2 320\r\n"),
        (b"get key\r\n", b"END\r\n"),
        (b"PING\r\n", b"PONG\r\n"),
    ],
)
def test_protocols_with_such_lines_are_not_claimed(asked: bytes, answer: bytes) -> None:
    assert not exchanges([(CLIENT, asked), (SERVER, answer)] * 3, [REDIS])
