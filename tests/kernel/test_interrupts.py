"""A signal at any moment of the first seconds: the end comes soon, and nothing is left."""

import json
import os
import random
import signal
import subprocess
import time
from contextlib import suppress
from importlib.resources import files
from pathlib import Path

import pytest

from tests.support.netns import run
from tests.support.tracer import PATIENCE, TCPRISM

pytestmark = pytest.mark.native

COUNT = int(os.environ.get("TCPRISM_SIGNALS", "24"))  # in all
SEED = int(os.environ.get("TCPRISM_SEED", "0")) or time.time_ns() % 10**9
NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
MOMENTS = 3.0  # seconds: the signal comes somewhere in them
SAMPLE = str(files("tcprism").joinpath("sample.tcpr"))
OURS = ("--port", "9")
COMMANDS = {
    "trace": ("trace", "--kinds", "all", *OURS),
    "command": ("trace", *OURS, "--", "sh", "-c", "echo $$ > pid; exec sleep 1000"),
    "file": ("trace", *OURS, "-o", "events.json", "--format", "json"),
    "record": ("record", "-o", "run.tcpr", *OURS),
    "explain": ("explain", *OURS),
    "demo": ("demo",),
    "top": ("top", "--plain", *OURS),
    "connections": ("connections", "--live", *OURS),
    "retransmits": ("retransmits", *OURS),
    "doctor": ("doctor",),
    "query": ("query", SAMPLE, "SELECT count(*) FROM events, events, events, events, events"),
    "export": ("export", SAMPLE, "--to", "parquet", "-o", "run.parquet"),
    "replay": ("replay", SAMPLE, "--speed", "1"),
}


def notes_signals(pid: int) -> bool:
    """Tell whether a process catches SIGTERM: before, it is not even our code that runs."""
    with suppress(OSError, IndexError):
        status = Path(f"/proc/{pid}/status").read_text()
        return bool(int(status.split("SigCgt:")[1].split()[0], 16) >> (signal.SIGTERM - 1) & 1)
    return False


def programs() -> set[int]:
    """Return the ids of all BPF programs in the kernel."""
    return {entry["id"] for entry in json.loads(run("bpftool", "-j", "prog", "list"))}


def held() -> set[int]:
    """Return the ids of the BPF programs that any process holds."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/fdinfo/*"):
        with suppress(OSError):
            found |= {
                int(line.split()[1])
                for line in path.read_text().splitlines()
                if line.startswith("prog_id")
            }
    return found


def cases() -> list[tuple[str, signal.Signals, float]]:
    """Return commands, signals and moments, as the seed has them."""
    chosen = random.Random(SEED)
    names = [list(COMMANDS)[number % len(COMMANDS)] for number in range(COUNT)]
    return [(name, chosen.choice(NUMBERS), chosen.uniform(0, MOMENTS)) for name in names]


def test_a_signal_at_any_moment(
    soon: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    print(f"TCPRISM_SEED={SEED} TCPRISM_SIGNALS={COUNT}; soon is {soon:.2f} s")
    before = programs()
    for number, case in enumerate(cases()):
        folder = tmp_path / str(number)
        (folder / "tmp").mkdir(parents=True)
        monkeypatch.chdir(folder)
        monkeypatch.setenv("TMPDIR", str(folder / "tmp"))
        interrupt(*case, soon)
    deadline = time.monotonic() + PATIENCE
    while left := programs() - before - held():  # freed after a grace period
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def interrupt(name: str, number: signal.Signals, moment: float, soon: float) -> None:
    """Send the signal, and check what is told and left."""
    what = f"{name}, {number.name} after {moment:.3f} s"
    process = subprocess.Popen(
        [TCPRISM, *COMMANDS[name]], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        while process.poll() is None and not notes_signals(process.pid):
            time.sleep(0.001)
        with suppress(subprocess.TimeoutExpired):
            process.wait(moment)
        process.send_signal(number)
        began = time.monotonic()
        _, said = process.communicate(timeout=PATIENCE)
        took = time.monotonic() - began
    finally:
        process.kill()
    print(f"{what}: {took:.2f} s, status {process.returncode}, {said.splitlines()[-1:]}")
    assert took < soon, what
    assert "Traceback" not in said, f"{what}: {said}"
    good = {0, 1, 2, 128 + number} | ({128 + signal.SIGTERM} if name == "command" else set())
    assert process.returncode in good, f"{what}: {said}"
    if process.returncode == 128 + number and name != "command":
        assert said.splitlines()[-1].startswith("tcprism: interrupted"), f"{what}: {said}"
    check_files(what)


def check_files(what: str) -> None:
    """Check that no file is half, no folder left, and that the command has ended."""
    assert not list(Path("tmp").iterdir()), what
    if Path("pid").exists():
        assert not Path("/proc", Path("pid").read_text().strip() or "none").exists(), what
    for path in Path().glob("run.*"):
        view = ["replay", str(path)]
        if path.suffix == ".parquet":
            assert path.read_bytes()[-4:] == b"PAR1", what
        else:
            done = subprocess.run([TCPRISM, *view], capture_output=True, text=True)
            assert (done.returncode, "tcprism:" in done.stderr) == (0, False), f"{what}: {done}"
