"""Cassandra: requests that cassandra-driver 3.30 encodes, in versions 3, 4 and 5 of CQL.

There is no Cassandra in Debian. recorded/cassandra.txt has a connection of each version, encoded by
the driver's ProtocolHandler and, in version 5, its SegmentCodec; the driver's decoder reads the
responses as "code=1100", "code=2000" and so on.
"""

import pytest

from .talk import CLIENT, SERVER, Talk, exchanges, recorded, told

CONNECTIONS = recorded("cassandra.txt")
INSERT = "INSERT INTO shop.orders (id, text) VALUES (?)"

SAID = [
    ("OPTIONS", "", ""),
    ("STARTUP", "", "AUTHENTICATE"),
    ("AUTH_RESPONSE", "", "AUTH_SUCCESS"),
    ("REGISTER", "", ""),
    ("SELECT", "SELECT name FROM shop.users WHERE id = ? AND secret = ?", ""),
    ("PREPARE", INSERT, ""),
    ("INSERT", INSERT, ""),  # of three streams, answered from the last to the first
    ("INSERT", INSERT, "0x1100"),
    ("INSERT", INSERT, ""),
    ("BATCH", "DELETE FROM shop.orders WHERE id = ? +1", ""),
    ("SELEC", "SELEC ?", "0x2000"),
    ("EXECUTE", "(prepared before)", "0x2500"),
    ("USE", "USE shop", "0x2200"),
    ("INSERT", "INSERT INTO big (a) VALUES (?)", ""),
]


@pytest.mark.parametrize("number", range(3))
def test_requests_are_those_that_the_driver_encoded(number: int) -> None:
    found = exchanges(CONNECTIONS[number])
    assert told(found) == SAID
    assert [one.status for one in found if one.failed] == ["0x1100", "0x2000", "0x2500", "0x2200"]
    streams = [one.begin or 0 for one in found[6:9]]
    assert streams == sorted(streams, reverse=True)


@pytest.mark.parametrize("number", range(3))
def test_a_message_has_its_exact_bytes(number: int) -> None:
    said = CONNECTIONS[number]
    sent, answered = (b"".join(data for its, data in said if its == side) for side in (0, 1))
    found = exchanges(said)
    select, refused = found[4], found[10]
    assert select.begin is not None
    assert select.end is not None
    message = sent[select.begin - 1000 : select.end - 1000]
    assert message[4] == 7
    assert len(message) == 9 + int.from_bytes(message[5:9], "big")
    assert refused.response_begin is not None
    assert refused.response_end is not None
    response = answered[refused.response_begin - 5000 : refused.response_end - 5000]
    assert response.endswith(b"no viable alternative")
    assert len(response) == 9 + int.from_bytes(response[5:9], "big")


def test_values_are_shown_on_demand_and_passwords_never() -> None:
    found = exchanges(CONNECTIONS[1], show_values=True)
    assert found[9].resource == "DELETE FROM shop.orders WHERE id = 7 +1"
    assert "hunter2" not in repr(found)


@pytest.mark.parametrize("number", range(3))
def test_a_connection_joined_late(number: int) -> None:
    said = CONNECTIONS[number]
    late = exchanges(said[8:])
    assert told(late) == SAID[4:]


def test_prepared_on_another_connection() -> None:
    exchanges(CONNECTIONS[1])
    execute = next(at for at, (side, data) in enumerate(CONNECTIONS[1]) if data[4:5] == b"\x0a")
    assert told(exchanges(CONNECTIONS[1][execute:]))[:3] == SAID[6:9]


def test_a_message_of_two_segments_that_are_not_captured() -> None:
    """Both headers of the segments are those of the driver's SegmentCodec for 140,000 bytes."""
    talk = Talk(captured=2_048)
    for side, data in CONNECTIONS[2][:8]:
        talk.say(side, data)
    statement = b"INSERT INTO big (a) VALUES ('"
    head = bytes.fromhex("0500000007") + (139_991).to_bytes(4, "big")
    head += (139_900).to_bytes(4, "big") + statement
    first = bytes.fromhex("ffff013891fe") + head + bytes(131_071 - len(head)) + b"tail"
    second = bytes.fromhex("e1220060052d") + bytes(8_929) + b"tail"
    at = 1000 + sum(len(data) for side, data in CONNECTIONS[2][:8] if side == CLIENT)
    talk.say(CLIENT, first, second)
    answer = CONNECTIONS[2][-1][1]
    talk.say(SERVER, answer.replace(b"\x85\x00\x00\x18", b"\x85\x00\x00\x00"))
    found = talk.end()[-1]
    assert told([found]) == [("INSERT", "INSERT INTO big (a) VALUES (?)", "")]
    assert (found.begin, found.end) == (at + 6, at + len(first) + 6 + 8_929)
    assert not talk.conversation.gaps


def test_a_number_that_an_unseen_request_uses_again() -> None:
    said = CONNECTIONS[1]
    talk = Talk()
    for side, data in said[:8]:
        talk.say(side, data)
    (_, select), (_, rows) = said[8:10]
    talk.say(CLIENT, select)
    talk.skip(SERVER, len(rows))
    talk.skip(CLIENT, len(select))  # on the same stream
    talk.say(SERVER, rows)
    assert [one.gap for one in talk.end() if one.method == "SELECT"] == [True]
