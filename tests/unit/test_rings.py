"""All rings of a run: their sizes, and the time order between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tcprism.events import KINDS, Batch, Part
from tcprism.events._wire import PAYLOAD_CLASSES
from tcprism.events.kinds import RECORDS
from tcprism.ring import rings
from tcprism.ring.rings import Rings

from .fake_ring import FakeRing, records_of
from .records import losses, messages, segments

SIZE = 64 << 10
CPUS = 2
MS = 1_000_000
SETTLE = rings.SETTLE_NS
NAMES = ("message_0", "message_64", "segment", "loss")
MAKERS: dict[str, Callable[..., Part]] = {
    "message_0": messages,
    "message_64": messages,
    "segment": segments,
    "loss": losses,
}


class Machine:
    """Fake rings, the reader of them all, and a clock that the test sets."""

    def __init__(self, ordered: bool = True, names: tuple[str, ...] = NAMES) -> None:
        self.now = 1000 * MS
        layouts = rings.layouts(dict.fromkeys(names, SIZE), CPUS)
        self.fakes = {name: FakeRing(layout) for name, layout in layouts.items()}
        self.rings = Rings(layouts, self.descriptor, ordered)

    def descriptor(self, name: str) -> int:
        if name.endswith("_lanes"):
            return self.fakes[name.removesuffix("_lanes")].lanes
        return self.fakes[name].records

    def write(self, name: str, ts_ns: int, lane: int = 0, **fields: object) -> None:
        """Put one record into a ring."""
        (record,) = records_of(MAKERS[name]({"ts_ns": ts_ns, **fields}))
        if name == "message_0":
            record = record[:-64]
        self.fakes[name].append(record, lane)

    def writing(self, name: str, writers: int, lane: int = 0) -> None:
        """Have so many programs in a lane, with a record that they have not finished."""
        self.fakes[name].table["writers"][lane] = writers

    def read(self) -> list[int]:
        """Return the times of what is ready, in order."""
        return times(self.rings.read())

    def close(self) -> None:
        """Close all rings."""
        self.rings.close()
        for fake in self.fakes.values():
            fake.close()


def times(parts: list[Part]) -> list[int]:
    """Return the times of events, in order."""
    return [int(moment) for moment in Batch(parts)["ts_ns"]]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    made = Machine()
    monkeypatch.setattr(rings, "time", SimpleNamespace(monotonic_ns=lambda: made.now))
    yield made
    made.close()


@pytest.mark.parametrize(
    ("kinds", "payload", "used"),
    [
        ({"send"}, 0, {"message_0": 64}),
        ({"recv"}, 1, {"message_0": 16, "message_64": 64}),
        ({"send", "recv"}, 64, {"message_0": 16, "message_64": 64}),
        ({"send"}, 65, {"message_0": 16, "message_64": 64, "message_256": 64}),
        ({"tls_recv"}, 64, {"tls_0": 16, "tls_64": 64}),
        ({"transmit"}, 64, {"segment": 64}),
        ({"probe"}, 64, {"segment": 64}),
        ({"acked"}, 64, {"delivery": 64}),
        ({"retransmit"}, 64, {"loss": 16}),
        ({"undo", "drop"}, 64, {"loss": 16}),
        ({"connect", "state"}, 64, {"connection": 64}),
        ({"transmit", "retransmit"}, 0, {"segment": 64, "loss": 16}),
    ],
)
def test_only_the_rings_in_use_are_large(
    kinds: set[str], payload: int, used: dict[str, int]
) -> None:
    sizes = rings.sizes(kinds, payload, 64 << 20)
    assert {name: size >> 20 for name, size in sizes.items() if size} == used


@pytest.mark.parametrize(
    ("options", "payload", "used"),
    [
        (False, 1, {"segment": 16, "segment_40": 1 / 16, "segment_40_64": 64, "loss": 16}),
        (True, 0, {"segment": 16, "segment_40": 64, "loss": 4, "loss_40": 16}),
        (
            True,
            65,
            {"segment": 4, "segment_40": 16, "segment_40_64": 64, "segment_40_256": 64}
            | {"loss": 4, "loss_40": 16},
        ),
    ],
)
def test_rings_of_segments_with_options_and_payload(
    options: bool, payload: int, used: dict[str, float]
) -> None:
    """Most packets have options, and about half of them carry payload."""
    sizes = rings.sizes({"receive", "retransmit"}, 64, 64 << 20, options, payload)
    assert {name: size / (1 << 20) for name, size in sizes.items() if size} == used


@pytest.mark.parametrize("payload", [0, PAYLOAD_CLASSES[-1]])
def test_records_have_room_for_what_follows_them(payload: int) -> None:
    sizes = rings.sizes(KINDS, payload, 64 << 20, True, payload)
    behind = {
        name: layout.record_size - RECORDS[name.partition("_")[0]].itemsize
        for name, layout in rings.layouts(sizes, 1).items()
    }
    assert behind["segment_40_16384"] == 40 + 16384
    assert behind["message_64"] == 64
    assert behind["loss_40"] == 40
    assert behind["loss"] == behind["message_0"] == 0


def test_the_longest_payload_uses_every_ring_of_messages() -> None:
    sizes = rings.sizes(["send"], PAYLOAD_CLASSES[-1], 64 << 20)
    assert [sizes[f"message_{limit}"] for limit in PAYLOAD_CLASSES] == [64 << 20] * 6


@pytest.mark.parametrize("size", [rings.SMALLEST, rings.DEFAULT_SIZE, rings.LARGEST])
def test_no_ring_in_use_is_too_small(size: int) -> None:
    sizes = rings.sizes(KINDS, 16384, size)
    assert min(filter(None, sizes.values())) >= rings.SMALLEST
    assert sizes["loss"] == max(size // 4, rings.SMALLEST)
    assert sizes["connection"] == size


@pytest.mark.parametrize(
    ("cpus", "size", "payload", "lanes"),
    [
        (1, 64 << 20, 64, 2),
        (2, 64 << 20, 64, 4),
        (3, 64 << 20, 64, 8),
        (500, 64 << 20, 64, 64),
        (500, rings.SMALLEST, 64, 64),
        (2, rings.SMALLEST, 16384, 2),
    ],
)
def test_all_rings_have_the_same_lanes_and_fill_their_size(
    cpus: int, size: int, payload: int, lanes: int
) -> None:
    sizes = rings.sizes(KINDS, payload, size)
    for name, layout in rings.layouts(sizes, cpus).items():
        assert layout.lanes == lanes
        assert layout.lanes & (layout.lanes - 1) == 0
        left = sizes[name] - layout.records * layout.stride
        assert 0 <= left < layout.lanes * layout.stride
        assert (layout.slots > 0) == (sizes[name] > 0)


def test_only_the_rings_in_use_are_mapped() -> None:
    layouts = rings.layouts({"message_0": 0, "segment": SIZE, "loss": 0}, CPUS)
    fake = FakeRing(layouts["segment"])
    asked = []

    def descriptor(name: str) -> int:
        asked.append(name)
        return fake.lanes if name.endswith("_lanes") else fake.records

    Rings(layouts, descriptor).close()
    assert asked == ["segment", "segment_lanes"]
    fake.close()


def test_an_event_waits_until_no_older_one_can_come(machine: Machine) -> None:
    for moment in (970, 981, 999):
        machine.write("segment", moment * MS)
    assert machine.read() == [970 * MS]
    assert machine.read() == []
    machine.now = 1001 * MS
    assert machine.read() == [981 * MS]
    machine.now = 1019 * MS
    assert machine.read() == [999 * MS]


def test_rings_are_merged(machine: Machine) -> None:
    for moment, name in enumerate((*NAMES, *reversed(NAMES)), start=100):
        machine.write(name, moment * MS)
    assert machine.read() == [moment * MS for moment in range(100, 108)]
    assert machine.rings.received == 8


def test_lanes_are_merged(machine: Machine) -> None:
    for moment in range(100, 120):
        machine.write("segment", moment * MS, moment % 3)
    assert machine.read() == [moment * MS for moment in range(100, 120)]


def test_an_unfinished_record_holds_back_what_is_later_elsewhere(machine: Machine) -> None:
    machine.write("segment", 100 * MS)
    machine.writing("segment", 1)
    machine.write("segment", 180 * MS, 1)
    machine.write("message_0", 70 * MS)
    machine.write("message_0", 200 * MS)
    assert machine.read() == [70 * MS]
    assert machine.read() == []
    machine.write("segment", 150 * MS)
    machine.writing("segment", 0)
    assert machine.read() == [100 * MS, 150 * MS, 180 * MS, 200 * MS]


def test_a_ring_that_is_behind_holds_back_the_others(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is bounded: of a full ring only so much is copied out in one go."""
    monkeypatch.setattr(rings, "_READ_AT_ONCE", 1 << 10)
    expected = [moment * 10 * MS for moment in range(1, 41)]
    for moment in expected:
        machine.write("segment" if moment % (20 * MS) else "loss", moment)
    machine.write("message_0", 399 * MS)
    found = machine.read()
    assert 0 < len(found) < 20
    while parts := machine.rings.drain():
        found += times(parts)
    assert found == sorted([*expected, 399 * MS])


def test_rings_of_losses_and_connections_are_emptied_at_each_read(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have all their room again, however little is read of the others."""
    monkeypatch.setattr(rings, "_READ_AT_ONCE", 1 << 10)
    for moment in range(1, 41):
        machine.write("segment", moment * MS)
        machine.write("loss", moment * MS)
    machine.read()
    assert machine.fakes["loss"].waiting() == 0
    assert machine.fakes["segment"].waiting() > 0


def test_what_waits_for_other_rings_has_a_bound(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is beyond it stays in its ring, and comes in order when the others are further."""
    monkeypatch.setattr(machine.rings, "_waiting_at_most", 20 * RECORDS["loss"].itemsize)
    machine.write("segment", machine.now)
    machine.writing("segment", 1)
    expected, found = [machine.now], []
    for _ in range(40):
        machine.now += MS
        machine.write("loss", machine.now)
        expected.append(machine.now)
        found += machine.read()
    assert machine.fakes["loss"].waiting() == 20
    machine.writing("segment", 0)
    machine.now += 2 * SETTLE
    while moments := machine.read():
        found += moments
    assert found == expected


def test_what_is_left_comes_in_order_when_a_read_takes_only_part(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it is too young to be settled, and one lane has the older half."""
    monkeypatch.setattr(rings, "_READ_AT_ONCE", 1 << 10)
    moments = [machine.now - SETTLE + 1 + number for number in range(40)]
    for moment in moments:
        machine.write("segment", moment, lane=int(moment >= moments[20]))
    found = []
    while parts := machine.rings.drain():
        found += times(parts)
    assert found == moments


def test_a_busy_lane_takes_what_the_others_leave_of_a_read(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rings, "_READ_AT_ONCE", 8 * machine.fakes["segment"].layout.stride)
    for lane, count in enumerate((1, 5, 1, 1)):
        for number in range(count):
            machine.write("segment", (100 + number) * MS, lane)
    assert len(machine.read()) == 8


def fill(machine: Machine, name: str, since_ns: int) -> list[int]:
    """Write to a lane of a ring until it is full; return the times."""
    written: list[int] = []
    while machine.fakes[name].has_room():
        written.append(since_ns + len(written))
        machine.write(name, written[-1])
    return written


def test_a_ring_that_fills_up_has_all_its_room_again(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However little is handed over: the rest is in memory, and comes in order."""
    monkeypatch.setattr(rings, "_READ_AT_ONCE", 1 << 10)
    expected: list[int] = []
    found: list[int] = []
    for turn in range(5):
        expected += fill(machine, "segment", (turn + 1) * MS)
        found += machine.read()
        assert machine.fakes["segment"].waiting() == 0
        assert machine.rings.fill_level() == 1
    assert len(found) < len(expected) // 10
    while parts := machine.rings.drain():
        found += times(parts)
    assert found == expected


def test_memory_for_what_rings_cannot_hold_has_a_bound(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rings, "_READ_AT_ONCE", 1 << 10)
    monkeypatch.setattr(rings, "_HELD_RINGS", 1)
    machine.rings = Rings(
        {name: fake.layout for name, fake in machine.fakes.items()}, machine.descriptor
    )
    expected: list[int] = []
    while not machine.fakes["segment"].waiting():
        expected += fill(machine, "segment", (len(expected) + 1) * MS)
        machine.read()
    size = machine.fakes["segment"].layout.stride
    assert SIZE * 0.75 < len(expected) * size < SIZE * 1.5


def test_memory_besides_the_rings_can_be_less(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rings, "_READ_AT_ONCE", 1 << 10)
    machine.rings.room //= 8  # four rings' for what is held
    expected: list[int] = []
    while not machine.fakes["segment"].waiting():
        expected += fill(machine, "segment", (len(expected) + 1) * MS)
        machine.read()
    size = machine.fakes["segment"].layout.stride
    assert SIZE * 0.5 < len(expected) * size < SIZE


def test_drain_gives_what_is_left_and_then_nothing(machine: Machine) -> None:
    for name, moment in (("segment", 999), ("message_64", 100), ("loss", 998)):
        machine.write(name, moment * MS)
    assert times(machine.rings.drain()) == [100 * MS]
    assert times(machine.rings.drain()) == [998 * MS, 999 * MS]
    assert machine.rings.drain() == []
    assert machine.rings.received == 3


def test_without_order_everything_comes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(ordered=False)
    monkeypatch.setattr(rings, "time", SimpleNamespace(monotonic_ns=lambda: machine.now))
    machine.write("segment", 1000 * MS)
    machine.write("message_0", 999 * MS)
    machine.writing("loss", 1)
    assert machine.read() == [999 * MS, 1000 * MS]
    machine.close()


def test_payload_comes_with_its_message(machine: Machine) -> None:
    machine.write("message_64", 1 * MS, payload=b"x" * 64, bytes=64)
    machine.write("message_0", 2 * MS, bytes=5)
    machine.write("message_64", 3 * MS, payload=b"\0short", remote_port=443)
    machine.write("loss", 4 * MS, end_seq=7)
    events = list(Batch(machine.rings.read()))
    assert [event.payload for event in events] == [b"x" * 64, None, b"\0short", None]
    assert [event.bytes for event in events] == [64, 5, 6, 0]
    assert (events[2].remote_port, events[3].end_seq) == (443, 7)


def test_fill_level_is_that_of_the_fullest_ring(machine: Machine) -> None:
    assert machine.rings.fill_level() == 0
    while machine.rings.fill_level() < 0.25:
        machine.write("segment", 1 * MS)
    machine.write("message_0", 1 * MS)
    ring = machine.fakes["segment"]
    assert ring.waiting() / ring.layout.records == machine.rings.fill_level()


late = st.integers(0, SETTLE - 1)
arrival = st.tuples(st.sampled_from(NAMES), st.integers(0, 3), late)
ticks = st.lists(st.lists(arrival, max_size=6), max_size=8)


@settings(max_examples=30)
@given(ticks, st.integers(1, 2 * SETTLE))
def test_reads_are_in_order_when_no_record_is_too_late(
    pattern: list[list[tuple[str, int, int]]], tick: int
) -> None:
    machine = Machine()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rings, "time", SimpleNamespace(monotonic_ns=lambda: machine.now))
        written, found = [], []
        for arrivals in pattern:
            for name, lane, delay in sorted(arrivals, key=lambda arrival: -arrival[2]):
                machine.write(name, machine.now - delay, lane)
                written.append(machine.now - delay)
            found += machine.read()
            machine.now += tick
        while parts := machine.rings.drain():
            found += times(parts)
    machine.close()
    assert found == sorted(written)
