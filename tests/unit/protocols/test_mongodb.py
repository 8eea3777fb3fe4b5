"""MongoDB: what pymongo 4 asked, and what its CommandListener said of each command.

recorded/mongodb.txt is what record.py wrote of two clients, the second with compressors=zlib, that
asked a server made of pymongo's bson, since there is no MongoDB in Debian: it said that a key is
there already, that an operator is unknown and that a command is.
"""

from tcprism.protocols import Exchange

from .talk import CLIENT, SERVER, Talk, exchanges, recorded, told

CONNECTIONS = recorded("mongodb.txt")
GREETINGS = ("ismaster", "hello")

# As the listener said; "ok" or the code of the failure. It takes a failed write for a success.
LISTENED = [
    ("insert", "shop.orders", "ok"),
    ("insert", "shop.orders", "11000"),
    ("find", "shop.orders", "ok"),
    ("getMore", "shop.orders", "ok"),
    ("find", "shop.missing", "2"),
    ("update", "shop.orders", "ok"),
    ("delete", "shop.orders", ""),  # with w=0: not acknowledged
    ("delete", "shop.orders", "ok"),
    ("aggregate", "shop.orders", "ok"),
    ("nosuch", "shop", "59"),
    ("ping", "shop", "ok"),
]


def commands(found: list[Exchange]) -> list[Exchange]:
    return [one for one in found if one.method not in GREETINGS]


def test_commands_are_those_that_the_client_listened_to() -> None:
    for number in (1, 3):
        found = commands(exchanges(CONNECTIONS[number]))
        assert told(found) == LISTENED
        assert [one.status for one in found if one.failed] == ["11000", "2", "59"]
        assert [one.method for one in found if not one.answered] == ["delete"]


def test_greetings_in_the_old_form() -> None:
    assert told(exchanges(CONNECTIONS[0])) == [
        ("ismaster", "admin", "ok"),
        ("hello", "admin", "ok"),
    ]


def test_documents_are_never_shown() -> None:
    assert "hunter2" not in repr([exchanges(said, show_values=True) for said in CONNECTIONS])


def test_a_connection_joined_late() -> None:
    assert told(exchanges(CONNECTIONS[1][2:])) == LISTENED


def test_responses_name_their_requests() -> None:
    said = CONNECTIONS[1]
    asked = b"".join(data for side, data in said if side == CLIENT)
    answered = [data for side, data in said if side == SERVER]
    found = exchanges([(CLIENT, asked), *((SERVER, data) for data in reversed(answered))])
    true = exchanges(said)
    assert sorted(told(found)) == sorted(told(true))
    assert {(one.begin, one.status) for one in found} == {(one.begin, one.status) for one in true}


def test_documents_need_not_be_captured() -> None:
    talk = Talk(captured=2_100)
    for side, data in CONNECTIONS[1]:
        talk.say(side, data)  # a batch that was found has 6,670 bytes
    assert told(commands(talk.end())) == LISTENED
    assert not talk.conversation.gaps
