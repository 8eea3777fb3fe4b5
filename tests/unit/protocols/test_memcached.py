"""Memcached: what a real server counted, quiet and silent commands, values, gaps."""

from collections import Counter

import pytest

from tcprism.protocols import Exchange
from tcprism.protocols.memcached import MEMCACHED

from .talk import CLIENT, SERVER, Talk, exchanges, recorded, told

# Memcached 1.6.18's `stats` after the recorded conversation.
CMD_GET, GET_MISSES, CMD_SET, CMD_TOUCH, DELETES, FLUSHES = 25, 7, 19, 2, 6, 1
SETS = ("set", "add", "append", "replace", "cas", "ms")

# And after recorded/memcached_binary.txt: two connections, the first of python-binary-memcached.
BINARY_GET, BINARY_SET, BINARY_TOUCH, BINARY_DELETES, BINARY_FLUSHES = 17, 20, 3, 9, 1


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


def binary() -> list[Exchange]:
    return [one for said in recorded("memcached_binary.txt") for one in exchanges(said)]


def test_what_the_server_counted_of_the_binary_protocol() -> None:
    methods = Counter(one.method.removesuffix("q") for one in binary())
    assert methods["get"] + methods["getk"] == BINARY_GET
    stores = ("set", "add", "append", "prepend")
    assert sum(methods[name] for name in stores) == BINARY_SET
    assert methods["touch"] + methods["gat"] + methods["gatk"] == BINARY_TOUCH
    assert methods["delete"] == BINARY_DELETES
    assert methods["flush"] == BINARY_FLUSHES
    failed = [(one.method, one.status) for one in binary() if one.failed]
    assert failed == [("increment", "DELTA_BADVAL"), ("sasl_list_mechs", "UNKNOWN_COMMAND")]


@pytest.mark.parametrize("piece", [1, 30, None])
def test_quiet_commands_of_the_binary_protocol(piece: int | None) -> None:
    said = recorded("memcached_binary.txt")
    multi = [one for one in exchanges(said[0], piece=piece) if one.method in ("getkq", "getk")]
    found = [(one.resource, one.status) for one in multi]
    assert found == [
        *((f"k{number}", "SUCCESS") for number in range(4, 8)),  # told by their keys
        *((f"k{number}", "") for number in range(8, 11)),
        ("k11", "KEY_ENOENT"),
    ]
    assert [one.answered for one in multi] == [True] * 4 + [False] * 3 + [True]
    quiet = [one for one in exchanges(said[1], piece=piece) if one.method == "getq"]
    assert [one.status for one in quiet] == ["SUCCESS"] * 4 + [""] * 2  # told by their numbers


def test_a_quiet_response_of_the_binary_protocol_that_may_be_of_several() -> None:
    found = exchanges(recorded("memcached_binary.txt")[1])
    alike = [one for one in found if one.method == "deleteq"][2:]
    assert [one.gap for one in alike] == [True, True]
    assert [one.method for one in found if one.gap] == ["deleteq", "deleteq", "noop"]


def test_values_of_the_binary_protocol_need_not_be_captured() -> None:
    talk = Talk([MEMCACHED], captured=300)
    for said in recorded("memcached_binary.txt")[0][:17]:  # one set each, and its response
        talk.say(*said)
    found = talk.end()
    assert [(one.method, one.resource, one.status) for one in found[:8]] == [
        ("set", f"k{number}", "SUCCESS") for number in range(8)
    ]
    assert not any(one.gap for one in found)


def test_a_binary_connection_joined_late() -> None:
    said = recorded("memcached_binary.txt")[0]
    for joined in range(0, 16, 2):
        found = exchanges(said[joined:])
        assert found[0].resource == f"k{joined // 2}"
