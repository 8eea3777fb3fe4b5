"""How commands that read a recording end: interrupted, without a reader, of a damaged file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest

from tcprism import interrupts
from tcprism.cli.output import opened
from tcprism.cli.recordings import play
from tcprism.cli.session import Limits, Stop
from tcprism.events import Batch
from tcprism.interrupts import Interrupted
from tcprism.recording.reader import Recording
from tcprism.sinks.json_lines import JsonLines
from tcprism.sinks.parquet import Parquet

SAMPLE = str(files("tcprism").joinpath("sample.tcpr"))
TCPRISM = str(Path(sys.executable).with_name("tcprism"))
PATIENCE = 300.0
FOREVER = "SELECT count(*) FROM events, events, events, events, events, events, events"


class InterruptedRecording(Recording):
    """Has the same batch three times; the signal comes while the second is read."""

    def batches(self) -> Iterator[Batch]:
        """Yield batches."""
        batch = next(super().batches())
        yield batch
        signal.raise_signal(signal.SIGINT)
        yield batch
        yield batch


@pytest.mark.parametrize("kind", [Parquet, JsonLines])
def test_what_was_written_before_a_signal_is_whole(
    kind: type[Parquet | JsonLines], tmp_path: Path
) -> None:
    path = tmp_path / "file"
    batch = next(Recording(SAMPLE).batches())
    with (
        interrupts.noted(),
        pytest.raises(Interrupted, match="the output ends early"),
        opened(path) as output,
        Stop(Limits(), output, None) as stop,
    ):
        play(InterruptedRecording(SAMPLE), 0, (), [kind(output)], output, stop)
    if kind is Parquet:
        parquet = pytest.importorskip("pyarrow.parquet")
        assert parquet.read_table(path).num_rows == 2 * len(batch)
    else:
        assert path.read_bytes().count(b"\n") == 2 * len(batch)


def test_a_replay_does_not_wait_for_its_time_after_a_signal() -> None:
    replay = subprocess.Popen(
        [TCPRISM, "replay", SAMPLE, "--speed", "0.0001"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert replay.stdout
    assert replay.stdout.readline()
    replay.send_signal(signal.SIGINT)
    _, said = replay.communicate(timeout=PATIENCE)
    assert replay.returncode == 130
    assert said.splitlines()[-1] == "tcprism: interrupted: the output ends early"


def test_a_replay_does_not_wait_for_a_pipe_after_a_signal() -> None:
    data = Path(SAMPLE).read_bytes()
    replay = subprocess.Popen(
        [TCPRISM, "replay", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert replay.stdin
    assert replay.stdout
    replay.stdin.write(data[: len(data) // 2])
    replay.stdin.flush()
    assert replay.stdout.readline()
    assert replay.stderr
    replay.send_signal(signal.SIGTERM)
    replay.stdout.read()
    said = replay.stderr.read().splitlines()[-1]  # not that it had to be ended
    assert said == b"tcprism: interrupted: the output ends early"
    assert replay.wait(PATIENCE) == 128 + signal.SIGTERM
    replay.stdin.close()


def test_a_query_leaves_no_folder(tmp_path: Path) -> None:
    query = subprocess.Popen(
        [TCPRISM, "query", SAMPLE, FOREVER],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    while not list(tmp_path.iterdir()):
        assert query.poll() is None
        time.sleep(0.01)
    query.send_signal(signal.SIGTERM)
    _, said = query.communicate(timeout=PATIENCE)
    assert query.returncode == 128 + signal.SIGTERM
    assert said.startswith("tcprism: interrupted ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        ("replay", SAMPLE),
        ("replay", SAMPLE, "--as", "connections"),
        ("export", SAMPLE, "--to", "csv", "-o", "-"),
        ("query", SAMPLE, "SELECT * FROM events"),
        ("query", "--list"),
        ("explain", SAMPLE),
        ("explain", SAMPLE, "--format", "json"),
        ("trace", "--help"),
    ],
    ids=" ".join,
)
def test_a_reader_that_goes_away_is_no_error(arguments: tuple[str, ...]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [TCPRISM, *arguments], stdout=writer, stderr=subprocess.PIPE, text=True, timeout=PATIENCE
    )
    os.close(writer)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "Broken" not in done.stderr


@pytest.fixture
def damaged(tmp_path: Path) -> str:
    """A recording that makes no sense from its middle on."""
    data = bytearray(Path(SAMPLE).read_bytes())
    middle = len(data) // 2
    data[middle : middle + 4000] = bytes(byte ^ 0x5A for byte in data[middle : middle + 4000])
    (tmp_path / "damaged.tcpr").write_bytes(data)
    return str(tmp_path / "damaged.tcpr")


@pytest.mark.parametrize(
    "arguments",
    [("replay",), ("export", "--to", "json", "-o", "-"), ("explain",)],
    ids=lambda arguments: str(arguments[0]),
)
def test_what_is_good_of_a_damaged_recording_is_shown_with_status_1(
    arguments: tuple[str, ...], damaged: str
) -> None:
    done = subprocess.run(
        [TCPRISM, *arguments, damaged], capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 1
    assert done.stdout
    assert f"tcprism: {damaged} " in done.stderr
    assert "is damaged" in done.stderr


def test_one_that_may_still_be_written_is_none(tmp_path: Path) -> None:
    data = Path(SAMPLE).read_bytes()
    (tmp_path / "part.tcpr").write_bytes(data[: len(data) // 2])
    done = subprocess.run(
        [TCPRISM, "replay", str(tmp_path / "part.tcpr")], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "ends without its last batch" in done.stderr
