"""Recordings: what was written is read again, whatever becomes of the file."""

from __future__ import annotations

import contextlib
import importlib.resources
import json
import os
import random
import stat
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tcprism
from tcprism.cli.output import create
from tcprism.cli.recordings import print_account
from tcprism.errors import OutputError, RecordingError
from tcprism.events import FAMILIES, Batch
from tcprism.events.kinds import RECORDS
from tcprism.events.ledger import Entry, Ledger
from tcprism.recording import writer as writing
from tcprism.recording.files import Files, Limit
from tcprism.recording.notes import KEY
from tcprism.recording.reader import Recording
from tcprism.recording.writer import Writer

from .recordings import CLOCK_OFFSET_NS, FACTS, batches, random_part, recorded, shown, written
from .records import messages

a_file = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    max_examples=25,
)


def some() -> list[Batch]:
    """Return batches of every family."""
    return [
        Batch([random_part(family, 30, seed) for family in FAMILIES], CLOCK_OFFSET_NS)
        for seed in (1, 2)
    ]


def entry(kind: str, lost: int = 0) -> Entry:
    return Entry(kind, 9, 2, 0, 7 - lost, lost, 0, 0, 0, 7 - lost, 100, 0)


def test_a_burst_is_read_again_with_the_memory_that_reading_has(tmp_path: Path) -> None:
    """All that a full ring holds comes as one batch."""
    some = random_part("segment", 10, 1)
    burst = Batch([some.take(np.arange(150_000) % len(some))], CLOCK_OFFSET_NS)
    recording = Recording(written(tmp_path / "run.tcpr", [burst]))
    assert sum(map(len, recording.batches())) == len(burst)
    assert recording.trouble == []


@a_file
@given(batches())
def test_replay_is_what_was_recorded(tmp_path: Path, made: list[Batch]) -> None:
    """Text and JSON, with owners, reasons and derived columns, byte for byte."""
    recording = Recording(written(tmp_path / "run.tcpr", made))
    assert shown(recording.batches()) == shown(made)
    assert recording.trouble == []


@a_file
@given(batches())
def test_records_come_back_whole(tmp_path: Path, made: list[Batch]) -> None:
    """Every field of every record, unknown kinds and all."""
    read = list(Recording(written(tmp_path / "run.tcpr", made)).batches())
    for family, record in RECORDS.items():
        for name in record.names or ():
            before, after = (in_order(batches, family, name) for batches in (made, read))
            np.testing.assert_array_equal(before, after)


def in_order(made: Iterable[Batch], family: str, name: str) -> list[Any]:
    """Return a field of a family's records, batch by batch, each in time order."""
    values: list[Any] = []
    for batch in made:
        some = Batch([part for part in batch.parts if part.family == family and len(part)])
        if len(some):
            joined = np.concatenate([part.rows[name] for part in some.parts])
            values += joined[some.permutation].tolist()
    return values


def test_batches_are_put_together_and_still_in_order(tmp_path: Path) -> None:
    """What comes in small batches is written in large ones; the output stays the same."""
    parts = [messages({"ts_ns": n, "comm": b"c", "payload": b"x" * n}) for n in range(50)]
    made = [Batch([part], CLOCK_OFFSET_NS) for part in parts]
    path = tmp_path / "run.tcpr"
    path.write_bytes(recorded(made, flush=False))
    read = list(Recording(path).batches())
    assert len(read) == 1
    assert shown(read) == shown(made)


def test_a_set_clock_is_kept(tmp_path: Path) -> None:
    made = [Batch([messages({"ts_ns": 5})], offset) for offset in (0, 10**18, 7)]
    path = tmp_path / "run.tcpr"
    path.write_bytes(recorded(made, flush=False))
    assert shown(Recording(path).batches()) == shown(made)


def test_facts_ledger_and_gaps(tmp_path: Path) -> None:
    path = tmp_path / "run.tcpr"
    with path.open("wb") as file:
        writer = Writer(file, FACTS)
        writer.note(Ledger((entry("send"), entry("recv"))))
        writer.write(some()[0])
        writer.note(Ledger((entry("send", lost=3), entry("recv"))))
        writer.close()
    recording = Recording(path)
    assert recording.facts == FACTS
    assert len(list(recording)) == 30 * len(FAMILIES)
    assert recording.ledger == Ledger((entry("send", lost=3), entry("recv")))
    (gap,) = recording.gaps
    assert (gap.kind, gap.lost) == ("send", 3)
    assert gap.since_ns < gap.until_ns


@pytest.mark.parametrize(
    ("sampled_out", "lost", "said"),
    [(0, 3, "3 send lost"), (3, 0, "3 send not in"), (1, 2, "3 send lost or not in the sample")],
)
def test_what_a_sample_leaves_out_is_not_called_lost(
    tmp_path: Path, sampled_out: int, lost: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with (tmp_path / "run.tcpr").open("wb") as file:
        writer = Writer(file, FACTS)
        writer.write(some()[0])
        writer.note(Ledger((Entry("send", 9, 0, sampled_out, 6, lost, 0, 0, 0, 6, 100, 0),)))
        writer.close()
    recording = Recording(tmp_path / "run.tcpr")
    assert sum(map(len, recording.batches()))
    print_account(recording, {"quiet": False, "verbose": 0}, ())
    assert f"gap: {said}" in capsys.readouterr().err


@pytest.mark.parametrize("lost", [8, 100, 5_000, 20_000])
def test_a_recording_that_was_cut_off(lost: int, tmp_path: Path) -> None:
    """It opens up to its last whole batch, and says so."""
    made = some()
    path = tmp_path / "run.tcpr"
    whole = recorded(made)
    path.write_bytes(whole[:-lost])
    recording = Recording(path)
    read = list(recording.batches())
    if lost == 8:
        assert recording.trouble == []  # only the mark of the end is missing, and not missed
    else:
        assert recording.trouble == [
            f"{path} ends without its last batch: it was cut off, or is still being written"
        ]
    assert [len(batch) for batch in read if len(batch)][:1] == [len(made[0])]
    assert shown(read[:1]) == shown(made[:1])


@a_file
@given(st.data())
def test_cut_anywhere(tmp_path: Path, data: st.DataObject) -> None:
    """Whatever was written before the cut is read."""
    made = some()
    pieces = [len(recorded(made[:count], close=False)) for count in range(len(made) + 1)]
    whole = recorded(made)
    cut = data.draw(st.integers(0, len(whole)))
    path = tmp_path / "run.tcpr"
    path.write_bytes(whole[:cut])
    if cut < pieces[0]:  # perhaps not even the facts are there
        with contextlib.suppress(RecordingError):
            assert list(Recording(path)) == []
        return
    complete = max(count for count, size in enumerate(pieces) if size <= cut)
    read = list(Recording(path).batches())
    assert shown(read[:complete]) == shown(made[:complete])


@settings(a_file, max_examples=80)
@given(st.integers(0, 1 << 30))
def test_damage_never_crashes_or_hangs(tmp_path: Path, seed: int) -> None:
    """Bytes changed, removed or added: an error of ours or less to read, never anything else."""
    chance = random.Random(seed)
    data = bytearray(recorded(some()))
    for _ in range(chance.choice([1, 1, 3, 30])):
        place = chance.randrange(len(data))
        damage = chance.choice(["flip", "cut", "insert", "zero"])
        if damage == "flip":
            data[place] ^= 1 << chance.randrange(8)
        elif damage == "cut":
            del data[place : place + chance.randrange(100)]
        elif damage == "insert":
            data[place:place] = chance.randbytes(chance.randrange(100))
        else:
            data[place : place + 40] = bytes(len(data[place : place + 40]))
    path = tmp_path / "run.tcpr"
    path.write_bytes(data)
    with contextlib.suppress(RecordingError):
        shown(Recording(path).batches())


@pytest.mark.parametrize("content", [b"", b"ARROW1\0\0", b"x" * 1000, bytes(1000)])
def test_what_is_no_recording(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "run.tcpr"
    path.write_bytes(content)
    with pytest.raises(RecordingError, match="is not a recording"):
        Recording(path)


def stream_with(path: Path, metadata: dict[bytes, bytes]) -> Path:
    """Write an Arrow stream that is no recording of ours."""
    schema = pyarrow.schema([("a", pyarrow.int64())], metadata=metadata)
    with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_stream(file, schema):
        pass
    return path


def test_somebody_elses_stream(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="is not a recording"):
        Recording(stream_with(tmp_path / "run.tcpr", {}))


def test_a_later_version(tmp_path: Path) -> None:
    facts = json.dumps({"version": 2, "kinds": []}).encode()
    with pytest.raises(RecordingError, match="take a newer tcprism"):
        Recording(stream_with(tmp_path / "run.tcpr", {KEY: facts}))


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="No such file"):
        Recording(tmp_path / "run.tcpr")
    with pytest.raises(RecordingError, match="there is no recording"):
        Recording(tmp_path)
    with pytest.raises(RecordingError, match="File name too long"):
        Recording("a" * 5000)


def test_a_recording_is_read_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "run.tcpr"
    with path.open("wb") as file:
        writer = Writer(file, FACTS)
        for number, batch in enumerate(some(), 1):
            writer.write(batch)
            writer.flush()
            recording = Recording(path)
            assert sum(map(len, recording.batches())) == number * len(batch)
            assert recording.trouble
        writer.close()
    assert sum(map(len, recording.batches())) == 2 * len(batch)
    assert recording.trouble == []


def test_through_a_pipe(tmp_path: Path) -> None:
    made = some()
    script = "import tcprism; print(sum(1 for _ in tcprism.open('-')))"
    done = subprocess.run([sys.executable, "-c", script], input=recorded(made), capture_output=True)
    assert done.stderr == b""
    assert int(done.stdout) == sum(map(len, made))


def files(path: Path, limit: Limit, enough: Callable[[], None] = lambda: None) -> Files:
    with open(os.devnull, "wb") as nowhere:
        made = Files(path, FACTS.filters, limit, create, nowhere, enough)
    made.open(FACTS)
    return made


def test_a_file_is_its_owners_alone(tmp_path: Path) -> None:
    made = files(tmp_path / "run.tcpr", Limit())
    made.close()
    assert stat.S_IMODE((tmp_path / "run.tcpr").stat().st_mode) == 0o600


def fill(target: Files, count: int) -> None:
    for number in range(count):
        target.write(Batch([random_part("message", 500, number)], CLOCK_OFFSET_NS))


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have what is written reach the file soon."""
    monkeypatch.setattr(writing, "ROWS_AT_ONCE", 500)


@pytest.mark.usefixtures("small_batches")
def test_rotation(tmp_path: Path) -> None:
    """A directory of whole recordings, which is read as one; the oldest go."""
    place = tmp_path / "run.tcpr"
    target = files(place, Limit(rotate=100_000, keep=3))
    fill(target, 12)
    target.close()
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    names = sorted(path.name for path in place.iterdir())
    assert len(names) <= 3
    assert names[-1] > "000003.tcpr"
    assert target.events == 6_000
    assert target.size == sum(path.stat().st_size for path in place.iterdir())
    recording = Recording(place)
    assert 0 < sum(map(len, recording.batches())) < 6_000
    assert recording.trouble == []


@pytest.mark.usefixtures("small_batches")
def test_a_loss_is_in_one_file_only(tmp_path: Path) -> None:
    place = tmp_path / "run.tcpr"
    target = files(place, Limit(rotate=1))
    target.account(Ledger((entry("send", lost=3),)))
    fill(target, 2)
    target.account(Ledger((entry("send", lost=4),)))
    target.close()
    recording = Recording(place)
    assert len(list(recording.batches())) == 2
    assert [gap.lost for gap in recording.gaps] == [3, 1]
    assert recording.ledger.lost == 4


def test_a_file_that_cannot_be_read_hides_no_others(tmp_path: Path) -> None:
    """As a power failure may leave it, empty."""
    made = [Batch([random_part("segment", 3, seed)], CLOCK_OFFSET_NS) for seed in (1, 2)]
    written(tmp_path / "000001.tcpr", made)
    (tmp_path / "000002.tcpr").touch()
    written(tmp_path / "000003.tcpr", made)
    recording = Recording(tmp_path)
    assert sum(map(len, recording.batches())) == 12
    assert recording.damaged
    assert [text.partition(":")[0] for text in recording.trouble] == [
        f"cannot read {tmp_path}/000002.tcpr"
    ]


def test_a_directory_with_a_recording_is_left_alone(tmp_path: Path) -> None:
    files(tmp_path, Limit(rotate=1)).close()
    with pytest.raises(OutputError, match="has a recording already"):
        files(tmp_path, Limit(rotate=1))


@pytest.mark.usefixtures("small_batches")
def test_a_full_recording_says_so(tmp_path: Path) -> None:
    said: list[str] = []
    target = files(tmp_path / "run.tcpr", Limit(max_size=100_000), lambda: said.append("enough"))
    assert said == []
    fill(target, 3)
    assert said
    target.close()


def test_reading_needs_neither_kernel_nor_linux(tmp_path: Path) -> None:
    """With all that is Linux' taken away, replay shows the same."""
    path = written(tmp_path / "run.tcpr", some())
    hidden = ("tcprism.kernel", "tcprism.sources.tracing", "tcprism.features", "fcntl")
    script = (
        f"import sys; sys.modules.update(dict.fromkeys({hidden!r}));"
        " from tcprism.cli import main; main()"
    )
    command = [sys.executable, "-c", script, "replay", str(path), "--format", "json"]
    done = subprocess.run(command, capture_output=True)
    assert done.stderr == b""
    assert done.stdout == shown(tcprism.open(path).batches())[1]


@pytest.mark.parametrize(
    ("library", "extra", "command"),
    [
        ("pyarrow", "arrow", ["replay", "--sample"]),
        ("pyarrow", "arrow", ["export", "{sample}", "--to", "json", "-o", "-"]),
        ("duckdb", "sql", ["query", "{sample}", "SELECT 1"]),
    ],
)
def test_a_library_that_is_missing(library: str, extra: str, command: list[str]) -> None:
    """One sentence with the command that helps."""
    sample = str(importlib.resources.files("tcprism").joinpath("sample.tcpr"))
    script = f"import sys; sys.modules[{library!r}] = None; from tcprism.cli import main; main()"
    arguments = [word.format(sample=sample) for word in command]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr == (
        f"tcprism: this needs {library}, which is not here: run `pip install 'tcprism[{extra}]'`\n"
    )
    assert done.stdout == ""
