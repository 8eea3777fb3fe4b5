"""Recordings in a bounded place."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pytest

import tcprism
from tcprism.errors import OutputError
from tcprism.events import Batch, Part
from tcprism.events.facts import Facts
from tcprism.recording.kept import Kept
from tests.unit.records import rows_of

FACTS = Facts(kinds=("send",))
KEEP = 1 << 20


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every batch written at once, and files of 64 kB."""
    monkeypatch.setattr("tcprism.recording.writer.SECONDS_AT_MOST", 0.0)
    monkeypatch.setattr("tcprism.recording.kept._BEYOND", 64 << 10)


def _create(path: Path) -> BinaryIO:
    return path.open("wb")


def _batch(seed: int) -> Batch:
    """Make events with payload that does not compress."""
    rows = rows_of("message", [{"ts_ns": 10 * seed + n, "pid": seed} for n in range(64)])
    rows["payload_length"] = rows["bytes"] = 256
    random = np.random.default_rng(seed)
    return Batch([Part(rows, random.integers(0, 256, (64, 256), np.uint8))])


def _record(place: Path, batches: range) -> Kept:
    kept = Kept(place, KEEP, {}, _create)
    kept.open(FACTS)
    for seed in batches:
        kept.write(_batch(seed))
    kept.close()
    return kept


def _size(place: Path) -> int:
    return sum(os.path.getsize(path) for path in place.glob("*/*.tcpr"))


def test_the_oldest_files_go_first_and_are_counted(tmp_path: Path) -> None:
    kept = _record(tmp_path, range(200))
    assert KEEP // 2 < _size(tmp_path) <= KEEP
    (run,) = tmp_path.iterdir()
    numbers = [int(path.stem) for path in sorted(run.iterdir())]
    deleted = kept.dropped().counts["recordings_deleted"]
    assert deleted > 0
    assert numbers == list(range(deleted + 1, deleted + 1 + len(numbers)))
    pids = [event.pid or 0 for event in tcprism.open(run)]
    assert pids[-1] == 199
    assert pids == sorted(pids)


def test_recordings_of_earlier_runs_go_first(tmp_path: Path) -> None:
    _record(tmp_path, range(30))
    (first,) = tmp_path.iterdir()
    _record(tmp_path, range(200))
    (second,) = tmp_path.iterdir()
    assert first != second
    assert _size(tmp_path) <= KEEP


def test_a_clock_that_was_set_back_does_not_have_the_newest_go_first(tmp_path: Path) -> None:
    _record(tmp_path, range(100))
    (before,) = tmp_path.iterdir()
    later = before.rename(tmp_path / "99991231T235959Z")
    _record(tmp_path, range(100, 115))
    (run,) = [each for each in tmp_path.iterdir() if each != later]
    assert {event.pid for event in tcprism.open(run)} == {*range(100, 115)}
    assert "000001.tcpr" not in {each.name for each in later.iterdir()}


class Disk:
    """Makes files that cannot be written to while it is `full`."""

    def __init__(self) -> None:
        self.full = False

    def create(self, path: Path) -> BinaryIO:
        """Create a file."""
        disk = self

        class File(io.FileIO):
            def write(self, data: Any) -> int:
                if disk.full:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return super().write(data)

        return cast(BinaryIO, File(path, "wb"))


def test_a_full_disk_ends_nothing_and_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk()
    kept = Kept(tmp_path, KEEP, {}, disk.create)
    kept.open(FACTS)
    disk.full = True
    for seed in range(3):
        kept.write(_batch(seed))
    account = kept.dropped()
    assert account.counts["not_recorded"] == 3 * 64
    assert account.remarks == ("192 events were not recorded: No space left on device",)
    disk.full = False
    monkeypatch.setattr("tcprism.recording.kept._AGAIN", 0.0)
    kept.write(_batch(7))
    kept.close()
    assert kept.dropped().counts["not_recorded"] == 3 * 64
    assert {event.pid for event in tcprism.open(max(tmp_path.iterdir()))} == {7}


def test_what_waits_when_the_disk_is_full_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that is set has the events before it written, and those behind it wait."""
    monkeypatch.setattr("tcprism.recording.writer.SECONDS_AT_MOST", float("inf"))
    disk = Disk()
    kept = Kept(tmp_path, KEEP, {}, disk.create)
    kept.open(FACTS)
    kept.write(_batch(1))
    kept.write(Batch(_batch(2).parts, clock_offset_ns=1))
    disk.full = True
    kept.close()
    (run,) = tmp_path.iterdir()
    assert [event.pid for event in tcprism.open(run)] == [1] * 64
    assert kept.dropped().counts["not_recorded"] == 64


def test_attempts_on_a_full_disk_leave_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tcprism.recording.kept._AGAIN", 0.0)
    disk = Disk()
    kept = Kept(tmp_path, KEEP, {}, disk.create)
    kept.open(FACTS)
    disk.full = True
    for seed in range(5):
        kept.write(_batch(seed))
    assert [*tmp_path.iterdir()] == []
    with pytest.raises(OutputError, match="No space left on device"):
        Kept(tmp_path, KEEP, {}, disk.create).open(FACTS)
    assert [*tmp_path.iterdir()] == []


def test_an_attempt_that_cannot_begin_deletes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tcprism.recording.kept._AGAIN", 0.0)
    disk = Disk()
    kept = Kept(tmp_path, KEEP, {}, disk.create)
    kept.open(FACTS)
    kept.write(_batch(1))
    disk.full = True
    kept.write(_batch(2))

    def failing(_: Path) -> bool:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as broken:
        broken.setattr(Path, "exists", failing)
        kept.write(_batch(3))
    (run,) = tmp_path.iterdir()
    assert [event.pid for event in tcprism.open(run)] == [1] * 64
    assert kept.dropped().remarks == ("128 events were not recorded: Input/output error",)


def test_a_place_that_cannot_be_written_to_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="Not a directory"):
        Kept(tmp_path / "file", KEEP, {}, _create).open(FACTS)
