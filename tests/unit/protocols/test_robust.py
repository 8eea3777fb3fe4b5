"""All protocols: what is cut, missing or no protocol at all misleads none of them."""

import random
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tcprism.protocols import Exchange, Match, Protocol
from tcprism.protocols.known import PROTOCOLS

from .talk import CLIENT, SERVER, Said, Talk, exchanges, recorded

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


def test_conversations_of_every_protocol_are_tried() -> None:
    found = {one.protocol for said in RECORDED for one in exchanges(said)}
    assert found == {protocol.name for protocol in PROTOCOLS}


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


@given(conversations, st.randoms(use_true_random=False))
@ROBUST
def test_what_threads_write_is_put_in_order(said: list[Said], dice: random.Random) -> None:
    """Each writes a part of what was written at once, and their calls return in any order."""
    talk, at, begun = Talk(), [1000, 5000], set[int]()
    for side, data in said:
        cuts = sorted({0, *(dice.randrange(len(data)) for _ in range(4)), len(data)})
        parts = list(pairwise(cuts))
        kept = parts[: side not in begun]  # what comes first is taken for the start
        others = parts[len(kept) :]
        dice.shuffle(others)
        for begin, end in (*kept, *others):
            talk.conversation.feed(side, at[side] + begin, end - begin, data[begin:end], 1000)
        begun.add(side)
        at[side] += len(data)
    assert talk.end() == exchanges(said)


@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.binary(min_size=1, max_size=200))
        | conversations.flatmap(st.sampled_from),
        max_size=30,
    )
)
@ROBUST
def test_pieces_of_all_protocols_and_of_none_never_raise(said: list[Said]) -> None:
    for one in exchanges(said):
        assert one.begin is None or one.end is None or one.begin <= one.end


def calls(said: list[Said]) -> int:
    """Return how many functions are called to read a conversation."""
    count = 0

    def profile(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        exchanges(said)
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.name)
def test_the_work_grows_with_the_bytes_alone(protocol: Protocol) -> None:
    """However many requests wait for their responses."""
    for said in RECORDED:
        if protocol.name not in {one.protocol for one in exchanges(said)}:
            continue
        pieces = [[one for one in said if one[0] == side] for side in (CLIENT, SERVER)]
        few, many = (calls(pieces[0] * times + pieces[1] * times) for times in (3, 24))
        assert many < 12 * few


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
