"""From the start line to the ledger, with a monitor that has what the test gives it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tcprism.cli.command import Command
from tcprism.cli.session import Limits, Stop, run
from tcprism.errors import OutputError
from tcprism.events import Batch, Part
from tcprism.events.facts import Facts
from tcprism.events.kinds import RECORDS
from tcprism.events.ledger import Ledger
from tcprism.pipeline import AT_ONCE, flow
from tcprism.sinks import Sink
from tcprism.sources.request import Request
from tcprism.sources.tracing import Tracing, pause
from tcprism.stages import Stage
from tcprism.stages.limits import First

from .records import messages, segments

LONG = 300.0  # seconds that no test waits for


def batch(*moments: int) -> Batch:
    """Return a batch of sends at these times."""
    return Batch([messages(*({"ts_ns": moment} for moment in moments))] if moments else [])


def moments(found: Batch) -> list[int]:
    """Return the times of a batch."""
    return [int(moment) for moment in found["ts_ns"]]


class FakeSource(Tracing):
    """Has these batches while it runs and those when it is drained; keeps the calls."""

    def __init__(self, running: Sequence[Batch], left: Sequence[Batch] = ()) -> None:
        super().__init__(Request())
        self.running, self.left = list(running), list(left)
        self.calls: list[str] = []

    def read(self) -> Batch:
        """Return the next batch; interrupt when there is none left."""
        self.calls.append("read")
        if len(self.running) == 1:
            signal.raise_signal(signal.SIGINT)
        return self.running.pop(0)

    def drain(self) -> Batch:
        self.calls.append("drain")
        return self.left.pop(0) if self.left else batch()

    def pause(self) -> float:
        return 0.0

    def ledger(self) -> Ledger:
        return Ledger(())

    @property
    def facts(self) -> Facts:
        return Facts(("send",))

    def stop(self) -> None:
        self.calls.append("stop")


class Kept(Sink):
    """A sink that writes the times of the events, and keeps the sizes of batches and the calls."""

    def __init__(self, output: BinaryIO) -> None:
        self.output = output
        self.sizes: list[int] = []
        self.calls: list[str] = []

    def write(self, batch: Batch) -> None:
        """Write the times, each on a line."""
        self.calls.append("write")
        self.sizes.append(len(batch))
        self.output.write(b"".join(b"%d\n" % moment for moment in moments(batch)))
        self.output.flush()

    def open(self, facts: Facts) -> None:
        self.calls.append(f"open {facts.kinds}")

    def account(self, ledger: Ledger) -> None:
        self.calls.append("account")

    def close(self) -> None:
        self.calls.append("close")


@pytest.fixture
def output(tmp_path: Path) -> Iterator[BinaryIO]:
    with open(tmp_path / "output", "w+b") as opened:
        yield opened


@pytest.fixture
def no_reader() -> Iterator[BinaryIO]:
    """A pipe whose reader has gone away."""
    reader, writer = os.pipe()
    os.close(reader)
    opened = open(writer, "wb")  # noqa: SIM115
    yield opened
    opened.close()


@given(st.integers(0, 10**6), st.floats(0, 1))
def test_the_pause_is_short_enough_and_a_ring_that_fills_up_is_not_waited_for(
    events: int, fill_level: float
) -> None:
    seconds = pause(events, fill_level)
    assert (seconds == 0) == (fill_level > 1 / 64)
    assert seconds == 0 or 0.002 <= seconds <= 0.05
    assert pause(events, 0) <= pause(0, 0)


times = st.lists(st.integers(0, 50), max_size=10)


@settings(max_examples=50)
@given(times, times, st.integers(1, 25))
def test_a_batch_gives_its_earliest(sends: list[int], transmits: list[int], count: int) -> None:
    parts = [
        messages(*({"ts_ns": moment} for moment in sends)),
        segments(*({"ts_ns": moment} for moment in transmits)),
    ]
    whole = Batch(parts, 7)
    taken = whole.between(0, count)
    assert list(taken) == list(whole)[:count]
    assert taken.clock_offset_ns == 7


def test_no_reason_to_stop(output: BinaryIO) -> None:
    with Stop(Limits(), output, None) as stop:
        began = time.monotonic()
        stop.wait(0.02)
        assert time.monotonic() - began >= 0.02
        stop.wait(0)
        assert not stop.reached


def test_stop_after_a_duration(output: BinaryIO) -> None:
    began = time.monotonic()
    with Stop(Limits(duration=0.05), output, None) as stop:
        while not stop.reached:
            stop.wait(LONG)
        assert 0.05 <= time.monotonic() - began < LONG / 2


def test_stop_when_the_reader_goes_away(no_reader: BinaryIO) -> None:
    with Stop(Limits(), no_reader, None) as stop:
        stop.wait(LONG)
        assert stop.reached


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_stop_on_a_signal(number: signal.Signals, output: BinaryIO) -> None:
    before = signal.getsignal(number)
    with Stop(Limits(), output, None) as stop:
        signal.raise_signal(number)
        stop.wait(LONG)
        assert stop.reached
    assert signal.getsignal(number) == before


def test_a_command_is_not_started_after_a_signal(
    output: BinaryIO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tcprism.cli.command._PATIENCE", LONG)
    command = Command(("sh", "-c", f": > {tmp_path}/mark"))
    with Stop(Limits(), output, command) as stop:
        signal.raise_signal(signal.SIGTERM)
        run(FakeSource([batch(), batch()]), (), [Kept(output)], output, stop, command)
        assert command.end() == 128 + signal.SIGTERM
    assert not (tmp_path / "mark").exists()


def test_stop_at_the_end_of_the_command(output: BinaryIO) -> None:
    command = Command(("true",))
    with Stop(Limits(), output, command) as stop:
        stop.wait(0)
        assert not stop.reached
        command.release()
        stop.wait(LONG)
        assert stop.reached
    assert command.status() == 0


def test_batches_end_with_what_is_left(output: BinaryIO) -> None:
    monitor = FakeSource([batch(1), batch(), batch(2, 3)], [batch(4), batch(5)])
    with Stop(Limits(), output, None) as stop:
        found = [moments(each) for each in batches(monitor, stop)]
    assert found == [[1], [], [2, 3], [4], [5], []]
    assert monitor.calls[:4] == ["read", "read", "read", "stop"]


@settings(max_examples=50)
@given(st.lists(times, min_size=1, max_size=4), st.lists(times, max_size=3), st.integers(1, 30))
def test_no_more_than_count(running: list[list[int]], left: list[list[int]], count: int) -> None:
    left = [each for each in left if each]
    monitor = FakeSource([batch(*each) for each in running], [batch(*each) for each in left])
    with open(os.devnull, "wb") as output, Stop(Limits(count=count), output, None) as stop:
        found = [moment for each in batches(monitor, stop) for moment in moments(each)]
    expected = [moment for each in (*running, *left) for moment in sorted(each)]
    assert found == expected[:count]


@settings(max_examples=50)
@given(st.lists(times, min_size=1, max_size=4), st.lists(times, max_size=3), st.integers(1, 30))
def test_count_counts_what_is_chosen(
    running: list[list[int]], left: list[list[int]], count: int
) -> None:
    """The drained batches of which nothing is chosen are not taken for the end."""
    left = [each for each in left if each]
    monitor = FakeSource([batch(*each) for each in running], [batch(*each) for each in left])
    with open(os.devnull, "wb") as output, Stop(Limits(count=count), output, None) as stop:
        found = [moment for each in batches(monitor, stop, odd) for moment in moments(each)]
    expected = [m for each in (*running, *left) for m in sorted(each) if m % 2]
    assert found == expected[:count]


def odd(all_of_them: Batch) -> Batch:
    """Choose the events at odd times."""
    parts = [part.take(part.rows["ts_ns"] % 2 == 1) for part in all_of_them.parts]
    return Batch(parts, all_of_them.clock_offset_ns)


def batches(source: FakeSource, stop: Stop, *stages: Stage) -> Iterator[Batch]:
    """Yield what comes of a source."""
    limits = (First(stop.count, stop.enough),) if stop.count else ()
    for each, seconds in flow(source, (*stages, *limits), stop):
        yield each
        stop.wait(seconds)


def test_run_writes_and_closes(output: BinaryIO, tmp_path: Path) -> None:
    monitor, sink = FakeSource([batch(1), batch(), batch(2)], [batch(3)]), Kept(output)
    other = Kept(output)
    with Stop(Limits(), output, None) as stop:
        run(monitor, (), [sink, other], output, stop)
    assert (tmp_path / "output").read_bytes() == b"1\n1\n2\n2\n3\n3\n"
    assert sink.sizes == other.sizes == [1, 0, 1, 1, 0]
    assert sink.calls == ["open ('send',)", *["write"] * 5, "account", "close"]


def test_events_are_out_before_the_next_look(output: BinaryIO, tmp_path: Path) -> None:
    shown = []

    class Watching(FakeSource):
        """Looks at the output each time that it is read."""

        def read(self) -> Batch:
            shown.append((tmp_path / "output").read_bytes())
            return super().read()

    with Stop(Limits(), output, None) as stop:
        run(Watching([batch(1), batch(2)]), (), [Kept(output)], output, stop)
    assert shown == [b"", b"1\n"]


def test_what_full_rings_had_is_passed_in_pieces(output: BinaryIO) -> None:
    """So that slow stages and sinks show progress, and a signal is noted between them."""
    many = batch(*range(1, 2 * AT_ONCE + 2))
    kept = Kept(output)
    with Stop(Limits(), output, None) as stop:
        run(FakeSource([many], [many]), (), [kept], output, stop)
    assert max(kept.sizes) <= AT_ONCE
    assert sum(kept.sizes) == 2 * len(many)


def test_a_snapshot_is_passed_whole(output: BinaryIO) -> None:
    """What is missing from it has ended."""
    snapshot = Part(np.zeros(AT_ONCE + 1, RECORDS["snapshot"]))
    many = Batch([*batch(*range(1, AT_ONCE + 2)).parts, snapshot])
    kept = Kept(output)
    with Stop(Limits(), output, None) as stop:
        run(FakeSource([many]), (), [kept], output, stop)
    assert [size > AT_ONCE for size in kept.sizes].count(True) == 1
    assert sum(kept.sizes) == 2 * (AT_ONCE + 1)


def test_events_beyond_count_are_read_all_the_same(output: BinaryIO) -> None:
    monitor = FakeSource([batch(1, 2, 3), batch()], [batch(4), batch(5)])
    with Stop(Limits(count=2), output, None) as stop:
        run(monitor, (), [Kept(output)], output, stop)
    assert monitor.left == []
    assert monitor.calls[:2] == ["read", "stop"]


def test_a_reader_that_went_away_is_no_error(no_reader: BinaryIO) -> None:
    monitor = FakeSource([batch(1), batch(2), batch(3)], [batch(4)])
    with Stop(Limits(), no_reader, None) as stop:
        run(monitor, (), [Kept(no_reader)], no_reader, stop)
    assert "stop" in monitor.calls
    assert monitor.left == []
    no_reader.write(b"still at exit")
    no_reader.flush()


def test_output_that_cannot_be_written() -> None:
    monitor = FakeSource([batch(1), batch(2)], [batch(3)])
    with (
        open("/dev/full", "wb", buffering=0) as full,  # a buffer would be written again at close
        Stop(Limits(), full, None) as stop,
        pytest.raises(OutputError, match="No space left on device"),
    ):
        run(monitor, (), [Kept(full)], full, stop)
    assert "stop" in monitor.calls
    assert monitor.left == []


def test_the_command_is_released(output: BinaryIO, tmp_path: Path) -> None:
    command = Command(("sh", "-c", f": > {tmp_path}/mark; exit 3"))
    with Stop(Limits(), output, command) as stop:
        run(FakeSource([batch(1)]), (), [Kept(output)], output, stop, command)
    assert command.status() == 3
    assert (tmp_path / "mark").exists()


def test_a_command_is_not_started_without_its_output(output: BinaryIO, tmp_path: Path) -> None:
    class Closed(Kept):
        """A sink whose file cannot be made."""

        def open(self, facts: Facts) -> None:
            raise OutputError("cannot write it")

    command = Command(("sh", "-c", f": > {tmp_path}/mark"))
    with Stop(Limits(), output, command) as stop, pytest.raises(OutputError):
        run(FakeSource([batch(), batch()]), (), [Closed(output)], output, stop, command)
    command.end()
    assert not (tmp_path / "mark").exists()


def test_a_wait_may_be_as_long_as_a_recording_says() -> None:
    """Slowed down, or from a machine that was silent for years."""
    with Stop(Limits(), None, None) as stop:
        signal.raise_signal(signal.SIGINT)
        stop.wait(1e15)
        assert stop.reached
