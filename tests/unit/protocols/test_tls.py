"""TLS: what openssl s_client and s_server said of their handshakes, and what RFC 8446 allows."""

import random

import pytest

from tcprism.protocols import Exchange, Match
from tcprism.protocols.tls import TLS

from .talk import CLIENT, SERVER, Said, Talk, exchanges, recorded

ECDSA = "TLSv1.2 TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"
AES_256 = "TLSv1.3 TLS_AES_256_GCM_SHA384"
FULL_1_2, RESUMED_1_2, FULL_1_3, RETRIED_1_3 = 0, 2, 3, 6

# What s_client was told to do, and what both printed: New or Reused, ALPN, "SSL alert number".
TOLD = [
    ("shop.example", ECDSA, False),
    ("shop.example", f"{ECDSA}, h2", False),
    ("shop.example", f"{ECDSA}, resumed", False),
    ("shop.example", AES_256, False),
    ("shop.example", f"{AES_256}, offered h2 http/1.1", False),
    ("shop.example", f"{AES_256}, resumed", False),
    ("shop.example", AES_256, False),  # after a HelloRetryRequest
    ("shop.example", f"{AES_256}, alert unknown_ca", True),
    ("shop.example", f"{ECDSA}, alert unknown_ca", True),
    ("shop.example", "alert handshake_failure", True),
    ("shop.example", "alert no_application_protocol", True),
    ("", AES_256, False),
]


def record(kind: int, body: bytes) -> bytes:
    return bytes((kind, 3, 3)) + len(body).to_bytes(2) + body


def only(said: list[Said], piece: int | None = None) -> Exchange:
    (found,) = exchanges(said, piece=piece)
    assert (found.protocol, found.method) == ("tls", "handshake")
    return found


@pytest.mark.parametrize("piece", [None, 1, 5, 1000])
def test_what_openssl_printed(piece: int | None) -> None:
    found = [only(said, piece) for said in recorded("tls.txt")]
    assert [(one.resource, one.status, one.failed) for one in found] == TOLD
    assert not any(one.gap for one in found)


@pytest.mark.parametrize(
    ("number", "flights"),
    [
        (FULL_1_2, 2),  # its certificate; then, behind the client's, its Finished
        (RESUMED_1_2, 1),
        (FULL_1_3, 1),  # the tickets behind the client's Finished are not of the handshake
        (RETRIED_1_3, 2),
    ],
)
def test_the_response_ends_with_the_finished(number: int, flights: int) -> None:
    said = recorded("tls.txt")[number]
    of_server = [data for side, data in said if side == SERVER]
    found = only(said)
    assert (found.begin, found.end) == (1000, 1000 + len(said[0][1]))
    assert found.response_begin == 5000
    assert found.response_end == 5000 + sum(map(len, of_server[:flights]))


def test_what_is_behind_the_handshake_is_passed_over() -> None:
    said = recorded("tls.txt")[FULL_1_3]
    talk = Talk([TLS], captured=4096)
    dice = random.Random(1)
    for side, data in said:
        talk.say(side, data)
    for _ in range(100):
        talk.say(dice.randrange(2), dice.randbytes(dice.randrange(1, 20_000)))
    assert len(talk.end()) == 1
    assert not talk.conversation.gaps
    assert talk.conversation.parser


def test_a_long_certificate_need_not_be_captured() -> None:
    said = recorded("tls.txt")[FULL_1_2]
    talk = Talk(captured=300)
    for side, data in said:
        talk.say(side, data)
    (found,) = talk.end()
    assert (found.status, found.gap) == (ECDSA, False)


def test_where_a_response_began_in_a_gap_is_not_known() -> None:
    talk = Talk()
    for number, (side, data) in enumerate(recorded("tls.txt")[RETRIED_1_3]):
        if number == 1:
            talk.skip(side, len(data))
        else:
            talk.say(side, data)
    (found,) = talk.end()
    assert (found.status, found.response_begin, found.gap) == (AES_256, None, True)


def test_an_encrypted_alert_of_a_client_is_told_by_its_length() -> None:
    hello, flight = recorded("tls.txt")[FULL_1_3][:2]
    alert = record(20, b"\1") + record(23, bytes(19))
    found = only([hello, flight, (CLIENT, alert)])
    assert (found.status, found.failed) == (f"{AES_256}, alert", True)


def test_a_handshake_that_is_not_over_is_pending() -> None:
    talk = Talk()
    for side, data in recorded("tls.txt")[FULL_1_2][:2]:
        talk.say(side, data)
    assert [one.resource for one in talk.conversation.pending()] == ["shop.example"]
    assert not talk.end()


def test_a_connection_joined_behind_its_handshake_is_unknown() -> None:
    for said in recorded("tls.txt"):
        assert not exchanges(said[2:])


@pytest.mark.parametrize("number", [FULL_1_2, FULL_1_3])
def test_a_part_of_a_hello_may_become_one(number: int) -> None:
    (_, hello), (_, answer) = recorded("tls.txt")[number][:2]
    for size in range(1, 44):
        assert TLS.request(hello[:size]) is Match.MORE
        assert TLS.response(answer[:size]) is Match.MORE
    assert TLS.request(hello) is TLS.response(answer) is Match.YES
    assert TLS.request(answer) is TLS.response(hello) is Match.NO


@pytest.mark.parametrize(
    "data",
    [b"\x16", b"\x16\x03\x01\x02\x00\x02", b"\x16\x04", b"\x16\x03\x01\xff\xff", b"\x15\x03\x01"],
)
def test_what_is_no_hello(data: bytes) -> None:
    assert TLS.request(data + b"A" * 100) is Match.NO
