"""What segments tell of a connection, batch by batch."""

from typing import Any

import numpy as np
import pytest

from tcprism.diagnosis.ends import Numbers, own_keys
from tcprism.diagnosis.runs import during, highest_before, last_highest, waits
from tcprism.diagnosis.segments import Segments
from tcprism.events import Part
from tcprism.events._wire import ECN_SHIFT, EventKind, SegmentArrival
from tcprism.events.names import TcpFlag

from .records import segments

ENDS: dict[str, Any] = {
    "netns": 1,
    "local_ip": "192.0.2.1",
    "local_port": 40000,
    "remote_ip": "192.0.2.2",
    "remote_port": 80,
}
MS = 1_000_000
Event = dict[str, Any]


def flags(*places: int, of: int) -> Any:
    return np.isin(np.arange(of), places)


def test_a_wait_begins_with_the_first_start_after_an_end() -> None:
    groups = np.array([0, 0, 0, 0, 0, 1, 1, 2, 2])
    starts, ends = flags(0, 1, 3, 5, 8, of=9), flags(2, 6, 7, of=9)
    over, begun, going_on = waits(groups, starts, ends)
    assert (over.tolist(), begun.tolist(), going_on.tolist()) == ([2, 6], [0, 5], [3, 8])
    inside = during(groups, starts, ends)
    assert np.flatnonzero(inside).tolist() == [0, 1, 3, 4, 5, 8]


def test_no_waits() -> None:
    nothing = np.zeros(3, np.bool_)
    assert [len(each) for each in waits(np.zeros(3, np.intp), nothing, nothing)] == [0, 0, 0]


def test_the_highest_so_far_over_the_wrap() -> None:
    groups = np.array([0, 0, 0, 0, 1, 1])
    numbers = np.array([2**32 - 10, 5, 2**32 - 5, 9, 7, 3], np.uint32)
    counts = flags(0, 1, 2, 5, of=6)
    above, known = highest_before(groups, numbers, counts)
    assert known.tolist() == [False, True, True, True, False, False]
    assert above[known].tolist() == [15, -10, 4]
    assert last_highest(groups, numbers, counts).tolist() == [1, 5]


def event(kind: EventKind, ts_ms: float, **more: Any) -> Event:
    told = {"kind": kind, "ts_ns": round(ts_ms * MS), "flags": TcpFlag.ACK, "window": 500}
    return ENDS | told | {"arrival": SegmentArrival.UNKNOWN, "segs": 1} | more


def came(ts_ms: float, seq: int = 0, size: int = 0, **more: Any) -> Event:
    """Return a segment that arrived, in order unless it says otherwise."""
    place = {"seq": seq % 2**32, "end_seq": (seq + size) % 2**32, "bytes": size}
    return event(EventKind.RECEIVE, ts_ms, arrival=SegmentArrival.IN_ORDER) | place | more


def left(ts_ms: float, seq: int = 0, size: int = 0, ack: int = 0, **more: Any) -> Event:
    place = {"seq": seq % 2**32, "end_seq": (seq + size) % 2**32, "bytes": size}
    return event(EventKind.TRANSMIT, ts_ms, ack=ack % 2**32) | place | more


def part(*events: Event) -> Part:
    """Return segments; those with `stamp` have a time stamp, and one that it answers."""
    stamps = [one.pop("stamp", None) for one in map(dict, events)]
    rows = [{key: value for key, value in one.items() if key != "stamp"} for one in events]
    pairs = np.array([stamp or (0, 0) for stamp in stamps], np.int64)
    mask = [stamp is None for stamp in stamps]
    value, echo = (np.ma.MaskedArray(pairs[:, place], mask) for place in (0, 1))
    return segments(*rows).derive(ts_val=value, ts_ecr=echo)


def facts(*events: Event, now_ms: float = 10_000, each: bool = True) -> dict[str, float]:
    """Return what is told that is not 0; the same however the events come."""
    found = []
    for size in (1, 2, len(events)) if each else (len(events),):
        stage = Segments(Numbers(10))
        for begin in range(0, len(events), size):
            stage.add([part(*events[begin : begin + size])])
        numbers = stage._numbers.find(own_keys(segments(ENDS).rows))
        told = stage.facts(numbers, np.array([round(now_ms * MS)]))
        found.append({name: float(values[0]) for name, values in told.items() if values[0]})
    assert all(one == found[0] for one in found)
    return {k: v for k, v in found[0].items() if k not in ("arrived", "left", "data_arrived")}


def test_a_closed_window() -> None:
    shut, open_ = {"window": 0}, {"window": 9}
    assert facts(came(0), came(10, **shut), came(15, **shut), came(40, **open_)) == {
        "zero_windows": 1, "zero_window_us": 30_000, "zero_window_longest_us": 30_000,
    }  # fmt: skip
    still = facts(came(10, **shut), came(20, **open_), came(30, **shut), now_ms=130)
    assert (still["zero_windows"], still["closed_us"]) == (2, 100_000)
    assert still["zero_window_us"] == 110_000


def test_what_was_overtaken_says_nothing_of_windows() -> None:
    for arrival in (SegmentArrival.OLD_ACK, SegmentArrival.CHECKSUM_ERROR):
        assert not facts(came(0), came(10, window=0, arrival=arrival), came(40))
    reset = {"flags": TcpFlag.RST | TcpFlag.ACK}
    assert not facts(came(0), came(10, window=0, **reset), came(40))


def test_late_acks() -> None:
    late = facts(came(0, 100, 50), came(1, 150, 50), left(40, ack=200), left(50, ack=200))
    assert late == {"late_acks": 1, "late_acks_us": 40_000, "late_acks_longest_us": 40_000}
    assert not facts(came(0, 100, 50), left(1, ack=150), left(50, ack=150))
    assert not facts(came(0, 100, 50), left(40, ack=100))  # TCP has not got it yet


@pytest.mark.parametrize("start", [100, 2**32 - 20])
def test_late_acks_of_the_peer(start: int) -> None:
    """As far as they exceed the least that was seen."""

    def trip(at: float, took: float, seq: int, **more: Any) -> list[Event]:
        sent = left(at, seq, 10, stamp=(seq, 0), **more)
        return [sent, came(at + took, ack=(seq + 10) % 2**32, stamp=(1, seq))]

    quick = trip(0, 1, start)
    assert facts(*quick) == {"least_ack_us": 1000}
    assert facts(*quick, *trip(100, 41, start + 10)) == {
        "least_ack_us": 1000, "peer_late_acks": 1,
        "peer_late_acks_us": 41_000, "peer_late_acks_longest_us": 41_000,
    }  # fmt: skip
    assert facts(*quick, *trip(100, 41, start + 10, packets_out=1)) == {"least_ack_us": 1000}
    sent, answer = trip(100, 300, start + 10)
    again = answer | {"stamp": (1, start + 11)}  # what was sent again
    assert facts(*quick, sent, again) == {"least_ack_us": 1000}


def test_overtaken_data() -> None:
    out_of_order = {"arrival": SegmentArrival.OUT_OF_ORDER}
    first = came(0, 0, 10, stamp=(5, 0))
    overtook = came(1, 20, 10, stamp=(7, 0), **out_of_order)
    late = came(2, 10, 10, stamp=(6, 0))
    assert facts(first, overtook, late) == {"reordered": 1}
    for stamp in (7, 8):  # sent again, or perhaps so
        assert not facts(first, overtook, late | {"stamp": (stamp, 0)})
    assert not facts(first, overtook, {k: v for k, v in late.items() if k != "stamp"})


def test_what_was_acknowledged_comes_again() -> None:
    data, ack = came(0, 100, 10, stamp=(5, 0)), left(1, ack=110)
    again = came(300, 100, 10, stamp=(305, 0), arrival=SegmentArrival.DUPLICATE)
    assert facts(data, ack, again) == {"acked_again": 1, "acked_again_bytes": 10}
    assert not facts(data, ack, again | {"stamp": (5, 0)})  # a copy that the network made
    assert not facts(data, left(1, ack=100), again | {"ts_ns": 2 * MS})  # not acknowledged yet


def test_marks() -> None:
    ce = {"flags": TcpFlag.ACK | 3 << ECN_SHIFT}
    syn = {"flags": TcpFlag.SYN | TcpFlag.ECE | TcpFlag.CWR}
    echo, confirm = ({"flags": TcpFlag.ACK | flag} for flag in (TcpFlag.ECE, TcpFlag.CWR))
    found = facts(left(0, **syn), came(1, **ce, segs=3), left(2, **echo), came(3, **confirm))
    assert found == {"ce_arrived": 3, "ece_sent": 1, "cwr_arrived": 1}


def test_keepalives() -> None:
    data = left(0, 100, 10)
    probe = left(1000, 109)
    assert facts(data, came(1), probe, came(1002)) == {
        "keepalives": 1, "keepalives_answered": 1, "keepalives_longest_us": 2000,
    }  # fmt: skip
    assert facts(data, came(1), probe, left(2000, 109)) == {"keepalives": 2}
    assert not facts(data, came(1), probe | {"kind": EventKind.PROBE}, came(1002))
    assert not facts(data, left(1000, 110))


def test_keepalives_of_the_peer() -> None:
    old = {"arrival": SegmentArrival.OLD_SEQUENCE}
    data, probe = came(0, 100, 1, stamp=(5, 0)), came(1000, 100, stamp=(1005, 0), **old)
    answer = left(1001, ack=101)
    assert facts(data, left(1, ack=101), probe, answer) == {
        "peer_keepalives": 1, "peer_keepalives_longest_us": 1000,
    }  # fmt: skip
    overtaken = probe | {"stamp": (5, 0)}
    assert not facts(data, left(1, ack=101), overtaken, answer)
    shut = left(1, ack=101, window=0)
    assert not facts(data, shut, left(2, ack=101), probe, answer)  # it may not know yet
    more = came(500, 101, 10, stamp=(505, 0))
    later = (probe | {"seq": 110, "end_seq": 110}, answer | {"ack": 111})
    assert "peer_keepalives" in facts(
        data, shut, left(2, ack=101), more, left(501, ack=111), *later
    )


def test_what_is_not_known_is_nothing() -> None:
    stage = Segments(Numbers(1))
    other = ENDS | {"local_port": 1}
    stage.add([part(came(0, window=0)), part(came(0, window=0) | other)])  # there is room for one
    assert stage._numbers.refused == 1
    found = stage.facts(np.array([-1, 0, 7]), np.array([0, 5 * MS, 0]))
    assert found["zero_windows"].tolist() == [0, 1, 0]
