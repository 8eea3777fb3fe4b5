"""The stage that finds the write behind a retransmission."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tcprism.events import Batch, Part
from tcprism.events._wire import Cause, EventKind, MessageFlag, SegmentArrival
from tcprism.events.column import texts
from tcprism.events.columns import BY_NAME
from tcprism.stages import duplicate_acks, sends
from tcprism.stages.duplicate_acks import DuplicateAcks
from tcprism.stages.retransmits import WRITE, Retransmits
from tcprism.stages.sends import Sends

from .records import losses, messages, segments

ENDS: dict[str, Any] = {
    "netns": 1,
    "local_ip": "192.0.2.1",
    "local_port": 40000,
    "remote_ip": "192.0.2.2",
    "remote_port": 80,
}
WHO = {"pid": 7, "comm": b"curl"}
NAMES = ("attempt", "message_pid", "message_ts_ns", "message_offset", "message_bytes")


def send(ts_ns: int, seq: int, payload: bytes, **more: Any) -> dict[str, Any]:
    kind = {"kind": EventKind.SEND, "ts_ns": ts_ns, "seq": seq % 2**32}
    return ENDS | WHO | kind | {"payload": payload, "bytes": len(payload)} | more


def again(seq: int, length: int, **more: Any) -> dict[str, Any]:
    end_seq = (seq + length) % 2**32
    kind = {"kind": EventKind.RETRANSMIT, "ts_ns": 10**9, "seq": seq % 2**32}
    return ENDS | WHO | kind | {"bytes": length, "end_seq": end_seq} | more


def explained(stage: Retransmits, *events: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Return what the stage says of retransmissions."""
    (part,) = stage(Batch([losses(*events)])).parts
    return list(zip(*(BY_NAME[name].to_list(part) for name in NAMES), strict=True))


def text(stage: Retransmits, event: dict[str, Any]) -> Any:
    (part,) = stage(Batch([losses(event)])).parts
    return BY_NAME["message_text"].to_list(part)[0]


def remembering(*sends: dict[str, Any]) -> Retransmits:
    stage = Retransmits(lambda: True)
    stage(Batch([messages(*sends, payload_class=256)]))
    return stage


@pytest.mark.parametrize("start", [1000, 2**32 - 150], ids=["plain", "over the wrap"])
def test_the_write_that_has_the_first_byte(start: int) -> None:
    """Of many small writes the right one, wherever the sequence numbers begin."""
    writes = [
        send(number, start + 100 * number, b"%03d" % number * 33 + b".") for number in range(5)
    ]
    stage = remembering(*writes)
    assert explained(stage, again(start + 250, 150), again(start, 100)) == [
        (2, 7, 2, 50, 100),
        (2, 7, 0, 0, 100),
    ]
    assert text(stage, again(start + 250, 10)) == ("002" * 33)[:32]


def test_numbers_come_again() -> None:
    """The latest write counts: a connection can send more than 2 ** 32 bytes."""
    stage = remembering(send(1, 5000, b"x" * 100), send(2, 5000, b"y" * 50))
    assert explained(stage, again(5010, 10)) == [(2, 7, 2, 10, 50)]
    assert explained(stage, again(5070, 10)) == [(2, 7, 1, 70, 100)]


def test_attempts_are_counted_by_the_first_byte() -> None:
    stage = remembering(send(1, 0, b"x" * 64))
    found = explained(stage, again(0, 64), again(32, 32), again(0, 32, error=-11), again(0, 32))
    assert [attempt for attempt, *_ in found] == [2, 3, 3, 3]


def test_attempts_are_counted_in_the_order_of_time() -> None:
    """Each processor has a part of the ring, and they are read one after the other."""
    stage = remembering(send(1, 0, b"x" * 64))
    late, early = again(0, 64, ts_ns=200), again(0, 64, ts_ns=100)
    assert [attempt for attempt, *_ in explained(stage, late, early)] == [3, 2]


def test_another_connection_is_another() -> None:
    stage = remembering(send(1, 0, b"x" * 64))
    for name, value in (("local_port", 1), ("remote_ip", "192.0.2.3"), ("netns", 2)):
        assert explained(stage, again(0, 10, **{name: value})) == [(2, None, None, None, None)]


def test_a_send_that_still_goes_on() -> None:
    """Behind the last write, or as the first of a connection that was seen to begin."""
    stage = remembering(send(1, 100, b"x" * 50))
    assert explained(stage, again(160, 10)) == [(2, 7, None, 10, None)]
    first = again(1300, 10, first_seq=1000, first_seq_known=1)
    assert explained(Retransmits(lambda: True), first) == [(2, 7, None, 300, None)]
    assert explained(Retransmits(lambda: True), again(1300, 10)) == [(2, None, None, None, None)]


def test_a_send_that_was_not_traced_or_got_lost_is_not_said_to_go_on() -> None:
    """Its bytes are then in no send that came, whether it has returned or not."""
    first = again(1300, 10, first_seq=1000, first_seq_known=1)
    stage = Retransmits(lambda: False)
    assert explained(stage, first) == [(2, None, None, None, None)]
    stage(Batch([messages(send(1, 100, b"x" * 50))]))
    assert explained(stage, again(160, 10)) == [(2, None, None, None, None)]
    assert explained(stage, again(110, 10)) == [(2, 7, 1, 10, 50)]


def test_whether_all_sends_came_is_asked_once_for_many_retransmissions() -> None:
    """The answer is in the kernel's counters, which cost more to read than all else here."""
    asked = []

    def all_sends() -> bool:
        asked.append(0)
        return True

    stage = Retransmits(all_sends)
    stage(Batch([messages(send(1, 100, b"x" * 50))]))
    repeated = [again(seq, 10) for seq in range(150, 500, 10)]
    found = explained(stage, *repeated)
    assert found == [(2, 7, None, offset, None) for offset in range(0, 350, 10)]
    assert len(asked) == 1
    explained(stage, *repeated)
    assert len(asked) == 2


def test_a_send_without_a_number_may_be_the_one() -> None:
    """What lies behind the last known write, or after the first byte, is then not told."""
    nowhere = send(2, 0, b"y" * 50, flags=MessageFlag.SEQ_UNKNOWN)
    stage = remembering(send(1, 100, b"x" * 50), nowhere)
    assert explained(stage, again(160, 10)) == [(2, None, None, None, None)]
    assert explained(stage, again(110, 10)) == [(2, 7, 1, 10, 50)]
    first = again(1300, 10, first_seq=1000, first_seq_known=1)
    assert explained(remembering(nowhere), first) == [(2, None, None, None, None)]


def test_what_has_no_bytes_has_no_message() -> None:
    stage = remembering(send(1, 0, b"x" * 64))
    assert explained(stage, again(0, 0)) == [(2, None, None, None, None)]


def test_an_undo_has_no_message() -> None:
    stage = remembering(send(1, 0, b"x" * 64))
    undo = again(0, 10) | {"kind": EventKind.UNDO}
    assert explained(stage, undo) == [(None, None, None, None, None)]


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest sends go, and what may have repeated them is counted."""
    stage = Retransmits(lambda: True)
    monkeypatch.setattr(stage, "_sends", Sends(WRITE, 10))
    for number in range(8):
        other = {"local_port": 1} if number else {}
        stage(Batch([messages(*[send(number, 100 * number, b"x", bytes=100, **other)] * 2)]))
    assert explained(stage, again(0, 10)) == [(2, None, None, None, None)]
    assert stage.unjoined == 1
    assert stage.account().counts == {"unjoined": 1}


def test_between_two_sends_nothing_is_told() -> None:
    """Its send was not traced; who wrote the bytes is not known."""
    first = {"first_seq": 0, "first_seq_known": 1}
    stage = remembering(send(1, 100, b"x" * 50), send(3, 200, b"x" * 50))
    assert explained(stage, again(160, 10, **first)) == [(2, None, None, None, None)]
    assert stage.unjoined == 0


@settings(max_examples=60)
@given(st.data())
def test_among_many_sends_of_many_connections(data: st.DataObject) -> None:
    """Streams are cut into sends, which come in batches of any size, mixed; room gets less."""
    size = data.draw(st.sampled_from([1, 7, 40, 1_000]))
    stage = Retransmits(lambda: True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sends, "_LOOKS", data.draw(st.sampled_from([(1, 3, size), (size,)])))
        patch.setattr(stage, "_sends", Sends(WRITE, size))
        ends = {port: data.draw(st.sampled_from([0, 5_000, 2**32 - 200])) for port in (1, 2, 3)}
        made: list[tuple[int, int, int, int]] = []  # port, ts_ns, seq, length
        for _ in range(data.draw(st.integers(1, 12))):
            batch = []
            for port in data.draw(st.lists(st.sampled_from([1, 2, 3]), max_size=10)):
                length = data.draw(st.integers(1, 90))
                batch.append(send(len(made), ends[port], b"x", bytes=length, local_port=port))
                made.append((port, len(made), ends[port], length))
                ends[port] += length
            stage(Batch([messages(*batch)]))
            size = data.draw(st.integers(1, size))
            stage._sends.shrink(size)
            if made:
                port, ts_ns, seq, length = data.draw(st.sampled_from(made))
                offset = data.draw(st.integers(0, length - 1))
                (found,) = explained(stage, again(seq + offset, 1, local_port=port))
                kept = ts_ns >= len(made) - size
                assert found[1:] == ((7, ts_ns, offset, length) if kept else (None,) * 4)


def ack(ts_ns: int, ack: int, **more: Any) -> dict[str, Any]:
    duplicate = {"arrival": SegmentArrival.DUPLICATE_ACK}
    return ENDS | {"kind": EventKind.RECEIVE, "ts_ns": ts_ns, "ack": ack} | duplicate | more


def acks(*events: dict[str, Any], sack: tuple[str, ...] = ()) -> Part:
    """Return segments that arrived; without `sack` their options were not recorded."""
    part = segments(*events)
    if not sack:
        return part
    return part.derive(sack=np.ma.MaskedArray(texts([*sack]), [not text for text in sack]))


def caused(*parts: Part, size: int = 1000) -> list[tuple[Any, ...]]:
    """Return which ACKs the stage says to have caused the retransmissions of the last part."""
    stage = Retransmits(lambda: True)
    stage._acks = DuplicateAcks(size)
    found = stage(Batch(parts)).parts[-1]
    names = ("duplicate_acks", "sack_blocks", "duplicate_ack_first_ts_ns",
             "duplicate_ack_last_ts_ns")  # fmt: skip
    return list(zip(*(BY_NAME[name].to_list(found) for name in names), strict=True))


NONE = (None, None, None, None)
WRAP = 2**32


def fast(seq: int, length: int, **more: Any) -> dict[str, Any]:
    return again(seq, length, cause=Cause.FAST, **more)


def test_the_acks_behind_a_fast_retransmission_without_sack() -> None:
    """Duplicates of its first byte (RFC 5681), and of no other."""
    told = acks(ack(1, 1000), ack(2, 1000), ack(3, 900), ack(4, 1100), ack(5, 1000, local_port=1))
    assert caused(told, losses(fast(1000, 100))) == [(2, None, 1, 2)]
    assert caused(told, losses(fast(950, 100))) == [NONE]


def test_those_with_sack() -> None:
    """What tells of later bytes (RFC 6675), over the wrap; not what was there twice (RFC 2883)."""
    low = WRAP - 50
    told = acks(
        *(ack(n, low, arrival=SegmentArrival.IN_ORDER) for n in range(1, 5)),
        sack=(f"{low - 99}:{low}", "50:150", f"{low - 9}:{low - 5}, 50:250", "350:450, 50:250"),
    )
    assert caused(told, losses(fast(low, 100))) == [(3, "50:250, 350:450", 2, 4)]
    assert caused(told, losses(fast(250, 100))) == [(1, "350:450", 4, 4)]
    assert caused(told, losses(fast(50, 100))) == [(NONE)]  # it has arrived


def test_a_connection_without_duplicate_acks_beside_one_that_has_some() -> None:
    told = acks(ack(1, 1000))
    assert caused(told, losses(fast(1000, 100, local_port=1), fast(1000, 100))) == [
        NONE,
        (1, None, 1, 1),
    ]


def test_a_block_up_to_the_wrap() -> None:
    told = acks(ack(1, WRAP - 3000), sack=(f"{WRAP - 1000}:0",))
    assert caused(told, losses(fast(WRAP - 2000, 1000))) == [(1, f"{WRAP - 1000}:0", 1, 1)]


@given(st.data())
@settings(max_examples=100)
def test_no_ack_is_left_out(data: st.DataObject) -> None:
    """All ACKs of a connection at once show what those do that are looked at."""
    numbers = st.integers(WRAP - 40, WRAP + 40).map(lambda number: number % WRAP)
    blocks = st.lists(st.tuples(numbers, numbers), max_size=4)
    texts_of = blocks.map(lambda some: ", ".join(f"{begin}:{end}" for begin, end in some))
    drawn = data.draw(st.lists(st.tuples(numbers, texts_of, st.integers(1, 50)), min_size=1))
    events = [ack(ts_ns, number) for number, _, ts_ns in drawn]
    found = DuplicateAcks(1000)
    found.add(acks(*events, sack=tuple(text for _, text, _ in drawn)))
    since, until = sorted(data.draw(st.tuples(st.integers(0, 50), st.integers(0, 50))))
    segment = losses(fast(data.draw(numbers), data.draw(st.integers(1, 20)), ts_ns=until)).rows[0]
    all_acks = found._acks[: len(drawn)]
    all_acks = all_acks[np.argsort(all_acks["ts_ns"], kind="stable")]
    all_acks = all_acks[(all_acks["ts_ns"] > since) & (all_acks["ts_ns"] <= until)]
    showing, _ = duplicate_acks._showing(all_acks, int(segment["seq"]), int(segment["end_seq"]))
    connection = found._connections[0]
    told = found.cause_of(segment, connection, since).get("duplicate_acks", 0)
    assert told == len(showing)


def test_only_what_came_since_the_bytes_were_last_sent_and_before_now() -> None:
    told = acks(ack(10, 1000), ack(20, 1000), ack(40, 1000), ack(60, 1000))
    sent = losses(fast(1000, 100, ts_ns=30), fast(1000, 100, ts_ns=50))
    assert caused(told, sent) == [(2, None, 10, 20), (1, None, 40, 40)]


def test_a_timer_has_no_such_cause() -> None:
    assert caused(acks(ack(1, 1000)), losses(again(1000, 100, cause=Cause.RTO))) == [NONE]


def test_what_tcp_does_not_read_causes_nothing() -> None:
    corrupt = acks(ack(1, 1000, arrival=SegmentArrival.CHECKSUM_ERROR), sack=("1100:1200",))
    assert caused(corrupt, losses(fast(1000, 100))) == [NONE]


def test_of_many_the_latest_are_remembered() -> None:
    """Where one may have had to go that counts, nothing is said, and that is accounted for."""
    others = acks(*(ack(n, 5, local_port=2) for n in range(2, 5)))
    stage = Retransmits(lambda: True)
    stage._acks = DuplicateAcks(3)
    stage(Batch([acks(ack(1, 1000))]))
    stage(Batch([others]))
    (part,) = stage(Batch([losses(fast(1000, 100, ts_ns=9, rto_us=200_000))])).parts
    assert BY_NAME["duplicate_acks"].to_list(part) == [None]
    assert stage.account().counts["acks_forgotten"] == 1
    assert "use a filter" in stage.account().remarks[0]
