"""MySQL: recordings of PyMySQL, and of all kinds of commands, with MariaDB 10.11.

Its general log says what was asked, and the clients' errors what was answered.
"""

from struct import pack

import pytest

from tcprism.protocols import Match
from tcprism.protocols.mysql import MYSQL

from .talk import CLIENT, SERVER, Said, Talk, exchanges, recorded, told

OK = "OK"
PYMYSQL = [
    ("CONNECT", "shop", OK),
    ("SET", "SET NAMES utf8mb4", OK),
    ("DROP", "drop table if exists o", OK),
    ("CREATE", "create table o(id int primary key, b varchar(?))", OK),
    ("INSERT", "insert into o values (?)", OK),
    ("SELECT", "select b from o where id=?", OK),
    ("SELECT", "select * from o where id=?", OK),
    ("SELECT", "select * from missing", "1146 (42S02)"),
    ("SELEC", "selec", "1064 (42000)"),
    ("SELECT", "select ?; update o set b=? where id=?; select id from o", OK),
    ("SELECT", "select ?; select * from missing; select ?", "1146 (42S02)"),
    ("LOAD", "load data local infile ? into table o fields terminated by ?", OK),
    ("INSERT", "insert into o values (?)", "1062 (23000)"),
    ("PING", "", OK),
    ("INIT_DB", "shop", OK),
    ("SELECT", "select count(*) from o", OK),
    ("KILL", "KILL ?", "1094 (HY000)"),
]
COMMANDS = [
    ("CONNECT", "shop", OK),
    ("SET", "SET NAMES utf8mb4", OK),
    ("SET", "SET AUTOCOMMIT = ?", OK),
    ("SELECT", "select id, b from o", OK),
    ("SELECT", "select id from o where id=?", OK),
    ("SELECT", "select ?; select * from missing", "1146 (42S02)"),
    ("SELECT", "select ?; select ?", OK),
    ("PREPARE", "select id, b from o where id > ?", OK),
    ("SELECT", "select id, b from o where id > ?", OK),  # opens a cursor
    ("FETCH", "select id, b from o where id > ?", OK),
    ("FETCH", "select id, b from o where id > ?", OK),
    ("SELECT", "select id, b from o where id > ?", OK),
    ("PING", "", OK),  # sent with a Close, which has no response
    ("EXECUTE", "? (prepared before)", "1243 (HY000)"),  # of what was closed
    ("PREPARE", "select ?+?", OK),
    ("SELECT", "select ?+?", OK),  # sent with the Prepare
    ("SET_OPTION", "", OK),
    ("FIELD_LIST", "", OK),
    ("INIT_DB", "nowhere", "1049 (42000)"),
    ("DEBUG", "", OK),
]


def packet(number: int, body: bytes) -> bytes:
    return len(body).to_bytes(3, "little") + bytes([number]) + body


def query(text: str) -> bytes:
    return packet(0, b"\x03" + text.encode())


DEFINITION = b"\x03def" + b"\x01a" * 5 + bytes(13)
DONE = packet(1, bytes.fromhex("00000002000000"))
EOF = bytes.fromhex("fe00000200")
ROW = b"\x05abcde"
RESULT = packet(1, b"\1") + packet(2, DEFINITION) + packet(3, EOF)


def conversation(number: int) -> list[Said]:
    return recorded("mysql.txt")[number]


def test_what_pymysql_has_asked_is_answered_as_it_says() -> None:
    found = exchanges(conversation(0))
    assert told(found) == PYMYSQL
    assert all(one.failed == (one.status != OK) for one in found)


def test_a_wrong_password_is_an_error_and_not_shown() -> None:
    (found,) = exchanges(conversation(1), show_values=True)
    assert (found.method, found.status, found.failed) == ("CONNECT", "1045 (28000)", True)


@pytest.mark.parametrize(("number", "closed"), [(2, 1), (3, 3)])
def test_commands_with_an_eof_packet_behind_columns_and_without(number: int, closed: int) -> None:
    found = exchanges(conversation(number))
    wanted = [(one, text.replace("? (", f"{closed} ("), end) for one, text, end in COMMANDS]
    assert told(found) == wanted


@pytest.mark.parametrize("number", [0, 2, 3])
def test_every_byte_is_of_one_exchange(number: int) -> None:
    found = exchanges(conversation(number))
    sent = sum(len(data) for side, data in conversation(number) if side == CLIENT)
    unanswered = 5 if number == 0 else 5 + 9  # Quit, Close
    assert sum((one.end or 0) - (one.begin or 0) for one in found) == sent - unanswered
    received = sum(len(data) for side, data in conversation(number) if side == SERVER)
    greeting = len(conversation(number)[0][1])
    file_name = 25 if number == 0 else 0  # what asks for the file is no answer
    answered = sum((one.response_end or 0) - (one.response_begin or 0) for one in found)
    assert answered == received - greeting - file_name


@pytest.mark.parametrize("number", [0, 2, 3])
@pytest.mark.parametrize("piece", [1, 7, 1000])
def test_joined_in_the_middle(number: int, piece: int) -> None:
    said = conversation(number)
    begun = next(place for place, one in enumerate(said) if b"\x03select" in one[1])
    late = told(exchanges(said[begun:], piece=piece))
    assert late == told(exchanges(said))[-len(late) :]
    assert len(late) > 10


def test_statements_prepared_before_are_named() -> None:
    execute = packet(0, b"\x17" + pack("<IBI", 7, 0, 1))
    assert told(exchanges([(CLIENT, execute), (SERVER, DONE)])) == [
        ("EXECUTE", "7 (prepared before)", OK)
    ]


def test_attributes_of_a_query_are_no_statement() -> None:
    said = [
        (CLIENT, packet(0, b"\x03\0\x01select 'a'")),
        (SERVER, DONE),
        (CLIENT, packet(0, b"\x03\x01\x01\0\x01\xfe\0\x04name\x06secretselect 1")),
        (SERVER, DONE),
    ]
    assert told(exchanges(said)) == [("SELECT", "select ?", OK), ("QUERY", "", OK)]


def test_encryption_ends_what_can_be_read() -> None:
    greeting, login = conversation(0)[0], conversation(0)[1][1]
    capabilities = int.from_bytes(login[4:8], "little") | 1 << 11
    talk = Talk([MYSQL])
    talk.say(*greeting)
    talk.say(CLIENT, packet(1, pack("<I", capabilities) + login[8:36]))
    talk.say(CLIENT, bytes.fromhex("160301020001000100"))
    assert talk.conversation.parser is None
    assert [(one.method, one.answered) for one in talk.end()] == [("SSLRequest", False)]


def test_rows_and_values_need_not_be_captured() -> None:
    talk = Talk(captured=1200)
    for _ in range(3):
        talk.say(CLIENT, query("select a from o"))
        talk.say(SERVER, RESULT + packet(4, b"\xfd" + bytes(100_000)))
        talk.say(SERVER, packet(5, EOF))
        talk.say(CLIENT, query("insert into o values ('" + "x" * 100_000 + "')"))
        talk.say(SERVER, DONE)
    found = talk.end()
    assert (
        told(found)
        == [
            ("SELECT", "select a from o", OK),
            ("INSERT", "insert into o values (?)", OK),
        ]
        * 3
    )
    assert not any(one.gap for one in found)


def test_the_end_of_rows_is_found_behind_missing_ones() -> None:
    talk = Talk(captured=200)
    talk.say(CLIENT, query("select a from o"))
    talk.say(SERVER, RESULT + packet(4, ROW) * 100)
    talk.say(SERVER, b"de" + packet(104, ROW) + packet(105, EOF))
    talk.say(CLIENT, query("commit"))
    talk.say(SERVER, DONE)
    found = talk.end()
    assert [(one.method, one.status, one.gap) for one in found] == [
        ("SELECT", OK, False),
        ("COMMIT", OK, False),
    ]


def test_a_missing_request_leaves_its_response_to_nobody() -> None:
    talk = Talk()
    for name in ("a", "b", "c"):
        if name == "b":
            talk.skip(CLIENT, 50)
        else:
            talk.say(CLIENT, query(f"call {name}"))
        talk.say(SERVER, DONE)
    assert told(talk.end()) == [("CALL", f"call {name}", OK) for name in "ac"]


def test_a_response_must_have_the_next_number() -> None:
    talk = Talk([MYSQL])
    talk.say(CLIENT, query("commit"))
    talk.say(SERVER, DONE)
    talk.say(CLIENT, query("commit"))
    talk.say(SERVER, packet(2, DONE[4:]))
    assert talk.conversation.parser is None


def test_strict_about_what_it_is() -> None:
    assert MYSQL.request(query("select 1")) is Match.YES
    assert MYSQL.request(query("select 1")[:9]) is Match.MORE
    assert MYSQL.request(packet(0, b"\x03\x01\x02")) is Match.NO
    assert MYSQL.response(DONE) is Match.YES
    assert MYSQL.response(packet(1, b"\1") + packet(2, b"other")) is Match.NO
