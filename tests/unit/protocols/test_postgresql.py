"""PostgreSQL: a recording of psycopg with PostgreSQL 15, whose log says what it has done."""

from itertools import pairwise
from struct import pack

import pytest

from tcprism.protocols import Match
from tcprism.protocols.postgresql import POSTGRESQL

from .talk import CLIENT, SERVER, Said, Talk, exchanges, recorded, told

# What the server's log says: a line "statement" or "execute", or an error with its code.
LOGGED = [
    ("drop table if exists o; create table o(id int primary key", "INSERT 0 2"),
    ("select b from o where id=", "SELECT 1"),
    ("select ?/", "22012"),
    *[("select id from o where b=", "SELECT 1")] * 7,
    ("copy o from stdin", "COPY 2"),
    ("copy o to stdout", "COPY 4"),
    ("copy o from stdin", "22P02"),
    ("select ?", "SELECT 1"),
    ("update o set b=", "UPDATE 1"),
    ("select ?", "SELECT 1"),
    ("select ?", "SELECT 1"),
    ("select ?/", "22012"),
    ("insert into o values", "23505"),  # only the commit fails
    ("listen ch", "LISTEN"),
    ("notify ch", "NOTIFY"),
    ("", "EmptyQueryResponse"),
    ("select id from o", "SELECT 4"),
]


def message(kind: str, body: bytes = b"") -> bytes:
    return kind.encode() + pack(">I", len(body) + 4) + body


def query(text: str) -> bytes:
    return message("Q", text.encode() + b"\0")


def parse(name: str, text: str) -> bytes:
    return message("P", f"{name}\0{text}\0".encode() + bytes(2))


def bind(name: str) -> bytes:
    return message("B", f"\0{name}\0".encode() + bytes(6))


def error(code: str, severity: str = "ERROR") -> bytes:
    return message("E", f"S{severity}\0V{severity}\0C{code}\0Mwhat\0\0".encode())


STARTUP = pack(">II", 0, 3 << 16) + b"user\0me\0database\0shop\0\0"
STARTUP = pack(">I", len(STARTUP)) + STARTUP[4:]
EXECUTE, SYNC, FLUSH = message("E", bytes(5)), message("S"), message("H")
READY = message("Z", b"I")
ROW = message("D", pack(">HI", 1, 4) + b"abcd")
PARSED, BOUND = message("1"), message("2")


def tag(text: str) -> bytes:
    return message("C", text.encode() + b"\0")


def recording() -> list[Said]:
    (said,) = recorded("postgresql.txt")
    return said


def test_each_statement_has_the_result_that_the_server_logged() -> None:
    found = [one for one in exchanges(recording()) if one.begin is not None and one.answered]
    assert (found[0].method, found[0].resource) == ("STARTUP", "postgres")
    statements = [one for one in found[1:] if one.method != "PARSE"]
    assert len(statements) == len(LOGGED)
    for one, (text, status) in zip(statements, LOGGED, strict=True):
        assert one.resource.startswith(text)
        assert (one.status, one.failed) == (status, status[:2] in ("22", "23"))
        assert not one.gap


def test_every_byte_of_the_client_is_of_one_request() -> None:
    found = sorted(
        (one.begin, one.end or 0) for one in exchanges(recording()) if one.begin is not None
    )
    total = sum(len(data) for side, data in recording() if side == CLIENT)
    # But not: the two Sync behind what the server skipped, and Terminate.
    assert sum(end - begin for begin, end in found) == total - 2 * len(SYNC) - 5
    assert all(before[1] <= after[0] for before, after in pairwise(found))


def test_what_is_skipped_after_an_error_has_no_response() -> None:
    skipped = [one for one in exchanges(recording()) if not one.answered]
    assert [(one.resource, one.failed) for one in skipped] == [("select ?", True)]


def test_a_notification_is_nobodys_response() -> None:
    (note,) = [one for one in exchanges(recording()) if one.begin is None]
    assert (note.method, note.resource) == ("NOTIFY", "ch")


def test_statements_prepared_before_are_named() -> None:
    said = [
        (CLIENT, bind("s1") + EXECUTE + SYNC),
        (SERVER, BOUND + ROW + tag("SELECT 1") + READY),
        (CLIENT, parse("s1", "select 7") + bind("s1") + EXECUTE + SYNC),
        (SERVER, PARSED + BOUND + ROW + tag("SELECT 1") + READY),
        (CLIENT, bind("s1") + EXECUTE + SYNC),
        (SERVER, BOUND + ROW + tag("SELECT 1") + READY),
    ]
    assert told(exchanges(said)) == [
        ("EXECUTE", "s1 (prepared before)", "SELECT 1"),
        ("SELECT", "select ?", "SELECT 1"),
        ("SELECT", "select ?", "SELECT 1"),
    ]


def test_an_error_skips_to_its_sync_only() -> None:
    one = bind("") + EXECUTE
    said = [
        (CLIENT, parse("", "select 1") + one + one + SYNC + query("commit")),
        (SERVER, PARSED + error("22000") + READY + tag("COMMIT") + READY),
    ]
    found = exchanges(said)
    assert [(each.status, each.failed, each.answered) for each in found] == [
        ("22000", True, True),
        ("", True, False),
        ("COMMIT", False, True),
    ]


def test_a_fatal_error_is_the_last_response() -> None:
    found = exchanges([(CLIENT, STARTUP), (SERVER, error("28P01", "FATAL"))])
    assert told(found) == [("STARTUP", "shop", "28P01")]


def test_what_is_encrypted_is_not_read() -> None:
    talk = Talk([POSTGRESQL])
    talk.say(CLIENT, pack(">II", 8, 80_877_104))
    talk.say(SERVER, b"N")
    talk.say(CLIENT, pack(">II", 8, 80_877_103))
    talk.say(SERVER, b"S")
    talk.say(CLIENT, bytes.fromhex("160301020001000100"))
    talk.say(SERVER, bytes.fromhex("160303007a02000076"))
    assert talk.conversation.parser is None
    assert told(talk.end()) == [("GSSENCRequest", "", "N"), ("SSLRequest", "", "S")]


def test_a_cancel_request_has_no_response() -> None:
    talk = Talk()
    talk.say(CLIENT, pack(">IIII", 16, 80_877_102, 7, 8))
    assert not talk.end()
    (found,) = talk.conversation.pending()
    assert (found.method, found.begin, found.end, found.answered) == (
        "CancelRequest",
        1000,
        1016,
        False,
    )


def test_a_request_is_known_before_there_is_any_response() -> None:
    talk = Talk()
    talk.say(CLIENT, query("select pg_sleep(60)"))
    (found,) = talk.conversation.pending()
    assert (found.method, found.end) == ("SELECT", 1025)
    talk.say(SERVER, tag("SELECT 1") + READY)
    assert not talk.conversation.pending()
    assert told(talk.end()) == [("SELECT", "select pg_sleep(?)", "SELECT 1")]


def test_a_password_is_not_shown() -> None:
    said = [
        (CLIENT, STARTUP),
        (SERVER, message("R", pack(">I", 3))),
        (CLIENT, message("p", b"hunter2\0")),
        (SERVER, message("R", bytes(4)) + READY),
        (CLIENT, query("alter user me password 'hunter2'")),
        (SERVER, tag("ALTER ROLE") + READY),
    ]
    found = exchanges(said, show_values=True)
    assert [one.method for one in found] == ["STARTUP", "ALTER"]
    assert "hunter2" not in repr(found)


def test_rows_and_values_need_not_be_captured() -> None:
    talk = Talk(captured=4096)
    for _ in range(3):
        talk.say(CLIENT, query("select big"))
        begun = message("T", pack(">H", 1) + b"big\0" + bytes(18))
        talk.say(SERVER, begun + message("D", pack(">HI", 1, 100_000) + bytes(100_000)))
        talk.say(SERVER, tag("SELECT 1") + READY)
        talk.say(CLIENT, query("insert '" + "x" * 100_000 + "'"))
        talk.say(SERVER, tag("INSERT 0 1") + READY)
    found = talk.end()
    assert (
        told(found)
        == [
            ("SELECT", "select big", "SELECT 1"),
            ("INSERT", "insert ?", "INSERT 0 1"),
        ]
        * 3
    )
    assert not any(one.gap for one in found)


def test_the_end_of_a_response_is_found_behind_missing_rows() -> None:
    talk = Talk(captured=100)
    talk.say(CLIENT, query("begin"))
    talk.say(SERVER, tag("BEGIN") + READY)
    talk.say(CLIENT, query("select many"))
    talk.say(SERVER, ROW * 1000)
    talk.say(SERVER, b"cd" + ROW + tag("SELECT 1002") + READY)
    talk.say(CLIENT, query("end"))
    talk.say(SERVER, tag("COMMIT") + READY)
    found = talk.end()
    assert [one.status for one in found] == ["BEGIN", "SELECT 1002", "COMMIT"]
    assert not any(one.gap for one in found)


def test_a_missing_request_leaves_its_response_to_nobody() -> None:
    talk = Talk()
    for name in ("a", "b", "c"):
        if name == "b":
            talk.skip(CLIENT, 50)
        else:
            talk.say(CLIENT, query(f"select {name}"))
        talk.say(SERVER, ROW + tag("SELECT 1") + READY)
    assert told(talk.end()) == [("SELECT", f"select {name}", "SELECT 1") for name in "ac"]


def test_pipelined_responses_behind_a_gap_are_not_guessed() -> None:
    talk = Talk()
    one = bind("s") + EXECUTE + SYNC
    result = BOUND + tag("UPDATE 1") + READY
    talk.say(CLIENT, one, one, one)
    talk.say(SERVER, result)
    talk.skip(SERVER, len(result))
    talk.say(SERVER, result)
    talk.say(CLIENT, one)
    talk.say(SERVER, result)
    found = talk.end()
    assert [each.gap for each in found] == [False, True, True, False]
    assert [each.response_end is None for each in found] == [False, True, True, False]


@pytest.mark.parametrize("piece", [1, 5, 100, 4000])
def test_joined_in_the_middle(piece: int) -> None:
    said = recording()[12:]
    late = told(exchanges(said, piece=piece))
    assert late == told(exchanges(recording()))[-len(late) :]
    assert len(late) > 15


def test_strict_about_what_it_is() -> None:
    assert POSTGRESQL.request(query("select 1")) is Match.YES
    assert POSTGRESQL.request(message("Q", b"\x01\x02\0")) is Match.NO
    assert POSTGRESQL.request(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") is Match.NO
    assert POSTGRESQL.response(READY) is Match.YES
    assert POSTGRESQL.response(message("Z", b"x")) is Match.NO
    assert POSTGRESQL.request(message("P", b"name\0sel")[:8]) is Match.MORE
