"""Memcached: what a real server counted, quiet and silent commands, values, gaps."""

import pytest

from tcprism.protocols.memcached import MEMCACHED

from .talk import CLIENT, SERVER, Talk, exchanges, recorded, told

# Memcached 1.6.18's `stats` after the recorded conversation.
CMD_GET, GET_MISSES, CMD_SET, CMD_TOUCH, DELETES, FLUSHES = 25, 7, 19, 2, 6, 1
SETS = ("set", "add", "append", "replace", "cas", "ms")


def test_what_the_server_counted() -> None:
    (said,) = recorded("memcached.txt")
    found = exchanges(said)
    keys = [
        len(one.resource.split())
        for one in found
        if one.method in ("get", "gets", "mg") and not one.failed
    ]
    methods = [one.method for one in found]
    assert sum(keys) == CMD_GET
    assert sum(methods.count(name) for name in SETS) == CMD_SET
    assert methods.count("touch") + methods.count("gat") == CMD_TOUCH
    assert methods.count("delete") + methods.count("md") == DELETES
    assert methods.count("flush_all") == FLUSHES
    failed = [(one.method, one.status) for one in found if one.failed]
    assert failed == [
        ("incr", "CLIENT_ERROR"), ("bogus", "ERROR"), ("get", "ERROR"), ("incr", "CLIENT_ERROR"),
    ]  # fmt: skip


def test_quiet_gets_are_told_by_what_comes_back() -> None:
    (said,) = recorded("memcached.txt")
    found = [one for one in exchanges(said) if one.method in ("mg", "mn")][3:11]
    by_mark = [("m1", "VA"), ("none", ""), ("m3", "VA"), ("", "MN")]
    assert [(one.resource, one.status) for one in found] == by_mark * 2
    assert [one.answered for one in found] == [True, False, True, True] * 2


def test_a_quiet_response_that_may_be_of_several_is_given_to_none() -> None:
    said = [(CLIENT, b"md a q\r\nmd b q\r\nmn\r\n"), (SERVER, b"NF\r\nMN\r\n")]
    said += [(CLIENT, b"get a\r\n"), (SERVER, b"END\r\n")]
    found = exchanges(said, [MEMCACHED])
    assert [one.gap for one in found] == [True, True, True, False]
    assert told(found)[-1] == ("get", "a", "END")


@pytest.mark.parametrize("piece", [1, 3, 1000])
def test_offsets_are_exact(piece: int) -> None:
    sets, get = b"set k 0 0 7\r\nEND\r\nxx\r\n", b"get k none\r\n"
    value = b"VALUE k 0 7\r\nEND\r\nxx\r\nEND\r\n"
    said = [(CLIENT, sets + get), (SERVER, b"STORED\r\n" + value)]
    first, second = exchanges(said, piece=piece)
    assert (first.end, first.response_end) == (1000 + len(sets), 5008)
    assert (second.begin, second.end) == (first.end, 1000 + len(sets + get))
    assert (second.response_begin, second.response_end) == (5008, 5008 + len(value))


def test_values_need_not_be_captured_and_are_never_shown() -> None:
    talk = Talk([MEMCACHED], show_values=True, captured=100)
    for _ in range(3):
        talk.say(CLIENT, b"set k 0 0 100000\r\n" + b"x" * 100_000 + b"\r\n")
        talk.say(SERVER, b"STORED\r\n")
        talk.say(CLIENT, b"get k\r\n")
        talk.say(SERVER, b"VALUE k 0 100000\r\n" + b"x" * 100_000 + b"\r\nEND\r\n")
    found = talk.end()
    assert told(found) == [("set", "k 0 0 100000", "STORED"), ("get", "k", "VALUE")] * 3
    assert not any(one.gap for one in found)
    assert not talk.conversation.gaps


def test_a_cut_response_is_told_and_ends_before_the_next_request() -> None:
    talk = Talk([MEMCACHED], captured=100)
    long = b"VALUE k 0 1000\r\n" + b"x" * 1000 + b"\r\nEND\r\n"
    talk.say(CLIENT, b"get k l\r\n")
    talk.say(SERVER, long)
    talk.say(CLIENT, b"incr n 1\r\n")
    talk.say(SERVER, b"7\r\n")
    cut, whole = talk.end()
    assert (cut.gap, cut.response_begin, cut.response_end) == (True, 5000, 5000 + len(long))
    assert (whole.method, whole.gap, whole.response_end) == ("incr", False, 5003 + len(long))


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        (b"delete 5\r\n", b"DELETED\r\n"),  # beanstalkd
        (b"stats\r\n", b"OK 42\r\n---\n"),
        (b"get key\r\n", b"$3\r\nabc\r\n"),  # Redis, inline
        (b"quit\r\n", b"221 bye\r\n"),
    ],
)
def test_protocols_with_such_lines_are_not_claimed(asked: bytes, answer: bytes) -> None:
    assert not exchanges([(CLIENT, asked), (SERVER, answer)] * 3, [MEMCACHED])
