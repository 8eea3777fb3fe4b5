"""NATS: what clients asked of nats-server 2.15.1, and what its trace says of it.

recorded/nats.txt is what record.py wrote of three connections: nats-py 2.16 that published, asked a
service of its own four times and one that does not exist once, used JetStream, and published where
it must not; nats-py with a wrong password; a socket that wrote lines in the verbose mode.
"""

import pytest

from tcprism.protocols import Exchange

from .talk import CLIENT, SERVER, Talk, exchanges, recorded, told

CONNECTIONS = recorded("nats.txt")
CONNECT = b'CONNECT {"verbose":false}\r\n'
INFO = b'INFO {"server_id":"x"}\r\n'


def published(found: list[Exchange], answered: bool) -> list[tuple[str, str]]:
    kinds = ("PUB", "HPUB")
    return [
        (one.resource, one.status)
        for one in found
        if one.method in kinds and one.answered is answered
    ]


def test_requests_are_those_that_the_server_traced() -> None:
    found = exchanges(CONNECTIONS[0])
    assert published(found, answered=True) == [
        *[("price", "")] * 4,
        ("nobody", "503"),
        ("$JS.API.STREAM.CREATE.S", ""),
        ("js.1", ""),
        ("$JS.API.STREAM.NAMES", ""),
        ("$JS.API.CONSUMER.INFO.S.me", "404"),
        ("$JS.API.CONSUMER.CREATE.S.me.js.*", ""),
        ("$JS.API.CONSUMER.MSG.NEXT.S.me", ""),
    ]
    orders = [(f"orders.{which}", "") for which in (0, 1, 2, "h")]
    assert published(found, answered=False) == [
        *orders,
        *[("_INBOX.?", "")] * 4,
        ("$JS.ACK.S.me.?", ""),
        ("secret.1", ""),
    ]
    assert [one.resource for one in found if one.begin is None] == ["price"] * 4
    assert [one.resource for one in found if one.failed] == ["nobody", "$JS.API.CONSUMER.INFO.S.me"]
    assert not any(one.gap for one in found)


def test_a_response_has_the_bytes_of_its_message() -> None:
    said = CONNECTIONS[0]
    sent, answers = (b"".join(data for its, data in said if its == side) for side in (0, 1))
    found = next(one for one in exchanges(said) if one.resource == "nobody")
    assert found.begin is not None
    assert found.end is not None
    assert sent[found.begin - 1000 : found.end - 1000].startswith(b"PUB nobody _INBOX.")
    assert sent[found.begin - 1000 : found.end - 1000].endswith(b" 1\r\n?\r\n")
    assert found.response_begin is not None
    assert found.response_end is not None
    answer = answers[found.response_begin - 5000 : found.response_end - 5000]
    assert answer.startswith(b"HMSG _INBOX.")
    assert answer.endswith(b"Nats-Subject: nobody\r\n\r\n\r\n")


def test_a_refused_connection() -> None:
    assert told(exchanges(CONNECTIONS[1])) == [("CONNECT", "", "Authorization Violation")]


def test_a_verbose_server_confirms_in_order() -> None:
    found = exchanges(CONNECTIONS[2])
    violation = "Permissions Violation"
    assert told(one for one in found if one.begin is not None) == [
        ("CONNECT", "", "+OK"),
        ("PING", "", ""),
        ("SUB", "orders.*", "+OK"),
        ("PUB", "orders.1", "+OK"),
        ("PUB", "secret.1", violation),
        ("PUB", "orders.2", "+OK"),
        ("SUB", "secret.2", violation),
        ("SUB", "..bad", "Invalid Subject"),
        ("PUB", "bad..x", "Invalid Publish Subject"),
        ("UNSUB", "orders.*", "+OK"),
        ("PUB", "orders.1", "+OK"),
        ("PING", "", ""),
    ]


def test_passwords_are_never_shown() -> None:
    assert "letmein" not in repr([exchanges(said, show_values=True) for said in CONNECTIONS])


def test_payloads_need_not_be_captured() -> None:
    talk = Talk(captured=64)
    talk.say(SERVER, INFO)
    talk.say(CLIENT, CONNECT, b"SUB _INBOX.a.* 1\r\n")
    for number in (b"1", b"2"):
        line = b" _INBOX.a." + number
        talk.say(CLIENT, b"PUB big" + line + b" 1000000\r\n" + bytes(1_000_000) + b"\r\n")
        talk.say(SERVER, b"MSG" + line + b" 1 2000000\r\n" + bytes(2_000_000) + b"\r\n")
    found = talk.end()
    assert [one.resource for one in found if one.answered] == ["big", "big"]
    assert not talk.conversation.gaps


def test_a_request_without_reply_is_pending() -> None:
    talk = Talk()
    talk.say(SERVER, INFO)
    talk.say(CLIENT, CONNECT, b"SUB _INBOX.a.* 1\r\n", b"PUB slow _INBOX.a.1 0\r\n\r\n")
    talk.say(CLIENT, b"PUB other somebody.else 0\r\n\r\n")
    assert [one.resource for one in talk.conversation.pending() if one.method == "PUB"] == ["slow"]


@pytest.mark.parametrize("ours", [b"PING\r\n", b"PONG\r\n"])
def test_nobody_knows_which_end_only_pings(ours: bytes) -> None:
    talk = Talk()
    talk.say(CLIENT, ours)
    talk.say(SERVER, b"PONG\r\n")
    assert talk.conversation.parser is None
