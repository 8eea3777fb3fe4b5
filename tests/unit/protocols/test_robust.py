"""All protocols: what is cut, missing or no protocol at all misleads none of them."""

import random
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tcprism.protocols import Exchange, Match, Protocol
from tcprism.protocols.known import PROTOCOLS

from .talk import Said, Talk, exchanges, recorded

RECORDED = [
    said
    for path in sorted((Path(__file__).parent / "recorded").iterdir())
    for said in recorded(path.name)
]

# To make an example of a long conversation smaller takes longer than to read it.
ROBUST = settings(
    max_examples=60, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate)
)

conversations = st.sampled_from(RECORDED)

PLAIN = [protocol for protocol in PROTOCOLS if protocol.name != "tls"]


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.name)
def test_random_bytes_are_no_protocol(protocol: Protocol) -> None:
    dice = random.Random(7)
    for _ in range(20_000):
        data = dice.randbytes(dice.choice((5, 16, 64, 512)))
        claimed = protocol.request(data) is protocol.response(data[::-1]) is Match.YES
        assert not claimed, data


def claims(dice: random.Random, count: int) -> list[str]:
    """Hold so many conversations of 40 kB in random bytes; return what they were taken for.

    Half of them have the frames of TLS around what could as well be encrypted.
    """
    found = []
    for number in range(count):
        talk = Talk(PLAIN)
        for _ in range(40):
            data = dice.randbytes(dice.randrange(1, 2000))
            head = b"\x17\x03\x03" + len(data).to_bytes(2, "big") if number % 2 else b""
            talk.say(dice.randrange(2), head + data)
            if parser := talk.conversation.parser:
                found.append(parser.protocol)
        found += [one.protocol for one in talk.end()]
    return found


def test_random_and_encrypted_conversations_are_unknown() -> None:
    assert not claims(random.Random(8), 300)


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.name)
def test_no_protocol_takes_what_others_say(protocol: Protocol) -> None:
    """Nor that of a connection that is joined late."""
    for said in RECORDED:
        own = {one.protocol for one in exchanges(said)}
        for joined in range(4):
            found = {one.protocol for one in exchanges(said[joined:], [protocol])}
            assert not found or found & own, (said[joined:][:2], found, own)


@given(conversations, st.integers(1, 40))
@ROBUST
def test_pieces_of_any_size_say_the_same(said: list[Said], piece: int) -> None:
    assert exchanges(said, piece=piece) == exchanges(said)


@given(conversations, st.data())
@ROBUST
def test_gaps_never_pair_wrongly(said: list[Said], data: st.DataObject) -> None:
    def key(one: Exchange) -> tuple[object, ...]:
        return one.begin, one.response_begin, one.response_end, one.status, one.failed

    truth = {key(one) for one in exchanges(said)}
    talk = Talk()
    kept = st.integers(0, 40) | st.just(1 << 20)
    for side, piece in said:
        seen = piece[: data.draw(kept)]
        talk.part(side, seen, len(piece))
    for one in talk.end():
        assert one.gap or one.response_begin is None or key(one) in truth


@given(conversations, st.data())
@ROBUST
def test_changed_bytes_never_raise(said: list[Said], data: st.DataObject) -> None:
    talk = Talk()
    for side, piece in said:
        changed = bytearray(piece)
        if data.draw(st.booleans()):
            changed[data.draw(st.integers(0, len(piece) - 1))] = data.draw(st.integers(0, 255))
        talk.say(side, bytes(changed))
    talk.end()


@given(conversations, st.data())
@ROBUST
def test_joined_late_it_is_no_other_protocol(said: list[Said], data: st.DataObject) -> None:
    true = {one.protocol for one in exchanges(said)}
    if "nats" in true:  # PING and -ERR are words of both
        true.add("redis")
    if "grpc" in true:  # what says so may have come before
        true.add("http2")
    begin = data.draw(st.integers(0, len(said) - 1))
    side, first = said[begin]
    late = [(side, first[data.draw(st.integers(0, len(first) - 1)) :]), *said[begin + 1 :]]
    assert {one.protocol for one in exchanges(late)} <= true


def test_random_bytes_of_one_side_are_no_request() -> None:
    dice = random.Random(9)
    for _ in range(3_000):
        talk = Talk()
        talk.say(dice.randrange(2), dice.randbytes(dice.choice((5, 16, 64, 512))))
        assert not talk.conversation.pending()
