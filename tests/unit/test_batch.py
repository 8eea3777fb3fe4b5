"""Batches: time order, columns, events."""

import json
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcprism.events import COLUMNS, Batch, Part
from tcprism.events._wire import MESSAGE
from tcprism.events.batch import joined
from tcprism.events.columns import columns_of

from .records import MAKERS, losses, messages, segments

OFFSET = 1_767_225_600_000_000_000  # 2026-01-01T00:00:00Z


def in_order(*times: list[int]) -> Batch:
    """Return a batch of a part for each list of times; `seq` numbers the records."""
    parts: list[Part] = []
    number = 0
    for moments in times:
        events = [{"ts_ns": moment, "seq": number + i} for i, moment in enumerate(moments)]
        parts.append(segments(*events) if len(parts) % 2 else messages(*events))
        number += len(moments)
    return Batch(parts, OFFSET)


moments = st.lists(st.lists(st.integers(0, 20), max_size=12), max_size=4)


@given(moments)
def test_order_is_sorted_by_time_and_stable(times: list[list[int]]) -> None:
    batch = in_order(*times)
    flat = [moment for part in times for moment in part]
    expected = sorted(range(len(flat)), key=lambda number: flat[number])
    parts, rows = batch.order()
    found = [
        int(batch.parts[part].rows["seq"][row])
        for part, row in zip(parts.tolist(), rows.tolist(), strict=True)
    ]
    assert found == expected
    assert batch["seq"].tolist() == expected
    assert [event.seq for event in batch] == expected


@given(moments, st.integers(1, 9))
def test_split_keeps_every_event_in_order(times: list[list[int]], size: int) -> None:
    batch = in_order(*times)
    pieces = list(batch.split(size))
    assert [event for piece in pieces for event in piece] == list(batch)
    assert all(0 < len(piece) <= size for piece in pieces) or len(batch) == 0


@given(moments, st.integers(1, 9), st.integers(1, 9))
def test_split_bounds_bytes_too(times: list[list[int]], most: int, events: int) -> None:
    batch = in_order(*times)
    widest = max((part.nbytes // len(part) for part in batch.parts if len(part)), default=1)
    pieces = list(batch.split(most, events * widest))
    assert [event for piece in pieces for event in piece] == list(batch)
    for piece in pieces if len(batch) else ():
        assert 0 < len(piece) <= most
        assert sum(part.nbytes for part in piece.parts) <= (events + 1) * widest


def test_split_takes_the_payload_along() -> None:
    batch = Batch([messages(*({"ts_ns": 9 - i, "payload": b"%d" % i} for i in range(9)))])
    payloads = [event.payload for piece in batch.split(2) for event in piece]
    assert payloads == [b"%d" % i for i in range(8, -1, -1)]


def test_column_without_nulls_is_a_plain_array() -> None:
    batch = in_order([3, 1], [2])
    assert not isinstance(batch["ts_ns"], np.ma.MaskedArray)
    assert batch["ts_ns"].tolist() == [1, 2, 3]
    assert batch["kind"].tolist() == ["send", "transmit", "send"]


def test_column_is_masked_where_an_event_lacks_it() -> None:
    batch = Batch([messages({"ts_ns": 2, "requested": 10}), segments({"ts_ns": 1, "ack": 7})])
    assert batch["requested"].tolist() == [None, 10]
    assert batch["ack"].tolist() == [7, None]
    assert batch["ack"].sum() == 7


def test_what_a_stage_adds_without_a_clock_changes_no_times() -> None:
    batch = in_order([1, 2])
    added = Batch([messages({"ts_ns": 3})])
    both = joined(batch, added)
    assert both["time"][:2].tolist() == batch["time"].tolist()
    assert len(both) == 3


def test_time_is_the_wall_clock() -> None:
    batch = in_order([1, 1_000_000_005])
    assert batch["time"].dtype == np.dtype("datetime64[ns]")
    assert batch["time"][1] == np.datetime64("2026-01-01T00:00:01.000000005")
    assert [event.time for event in batch] == [
        "2026-01-01T00:00:00.000000001Z",
        "2026-01-01T00:00:01.000000005Z",
    ]


@pytest.mark.parametrize(
    "parts",
    [
        *([], [messages(), segments({})], [make({}) for make in MAKERS.values()]),
        *([make()] for make in MAKERS.values()),
    ],
)
def test_every_column_of_a_poor_batch(parts: list[Part]) -> None:
    batch = Batch(parts)
    assert {len(batch[column.name]) for column in COLUMNS} == {len(batch)}


def test_unknown_column() -> None:
    with pytest.raises(KeyError):
        Batch([])["no such column"]


def test_parts_are_checked() -> None:
    with pytest.raises(ValueError, match="dtype"):
        Part(np.zeros(1, np.uint8))
    with pytest.raises(ValueError, match="1 rows but 2 payloads"):
        Part(np.zeros(1, MESSAGE), np.zeros((2, 64), np.uint8))
    with pytest.raises(ValueError, match="does not have 1 values"):
        Part(np.zeros(1, MESSAGE), derived={"attempt": np.ma.MaskedArray([1, 2])})


def test_part_over_the_rows_of_a_ring() -> None:
    """Records of a ring have the payload behind them: both views jump over the other's bytes."""
    ring = np.zeros((2, MESSAGE.itemsize + 64), np.uint8)
    rows = ring[:, : MESSAGE.itemsize].view(MESSAGE)[:, 0]
    ring[1, MESSAGE.itemsize :] = ord("x")
    rows["payload_length"] = [0, 3]
    part = Part(rows, ring[:, MESSAGE.itemsize :])
    assert part.payloads() == [b"", b"xxx"]
    assert part.take(np.array([1])).payloads() == [b"xxx"]


def event(**fields: Any) -> Any:
    (only,) = Batch([messages(fields)], OFFSET)
    return only


def test_event_is_a_value() -> None:
    one = event(pid=3, comm=b"sh", payload=b"\0\xff")
    assert one == event(pid=3, comm=b"sh", payload=b"\0\xff")
    assert one != event(pid=4, comm=b"sh", payload=b"\0\xff")
    assert len({one, event(pid=3, comm=b"sh", payload=b"\0\xff")}) == 1
    assert pickle.loads(pickle.dumps(one)) == one
    with pytest.raises(AttributeError):
        one.pid = 4


def test_event_prints_what_is_known() -> None:
    shown = repr(event(pid=3, comm=b"sh", remote_ip="192.0.2.1", remote_port=80))
    assert "comm='sh'" in shown
    assert "None" not in shown
    assert "192.0.2.1:80" in str(event(remote_ip="192.0.2.1", remote_port=80))
    assert "[::1]:80" in str(event(family=6, remote_ip="::1", remote_port=80))


def test_event_as_dict_has_the_keys_of_its_family() -> None:
    (loss,) = Batch([losses({})])
    assert "ack" in loss.as_dict()
    assert "payload" not in loss.as_dict()
    assert event(payload=b"\0").as_dict()["payload"] == "AA=="
    for family, make in MAKERS.items():
        (one,) = Batch([make({})])
        assert list(one.as_dict()) == [column.name for column in columns_of(family)]
    json.dumps(event(payload=b"\0").as_dict())
