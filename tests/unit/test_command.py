"""`-- COMMAND`, with real programs."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tcprism.cli.command import Command
from tcprism.errors import UsageError

PATIENCE = 300.0
Start = Callable[..., Command]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Start commands; those that the test does not end are killed.

    One that is asked to end may take long to do so where the machine is busy.
    """
    monkeypatch.setattr("tcprism.cli.command._PATIENCE", PATIENCE)
    started: list[Command] = []

    def start(*arguments: str) -> Command:
        started.append(Command(arguments))
        return started[-1]

    yield start
    for command in started:
        if not ended(command, 0):
            signal.pidfd_send_signal(command.pidfd, signal.SIGKILL)
        command.status()


def ended(command: Command, patience: float = PATIENCE) -> bool:
    """Wait for the end of a command without asking for its status."""
    return bool(select.select([command.pidfd], [], [], patience)[0])


def state(command: Command) -> str:
    """Return the process's state, such as S for one that sleeps."""
    return Path(f"/proc/{command.pid}/stat").read_text().rpartition(") ")[2][0]


def test_the_program_waits_for_its_release(start: Start, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    command = start("sh", "-c", f": > {mark}")
    deadline = time.monotonic() + PATIENCE
    while (now := state(command)) not in "SZ":
        assert time.monotonic() < deadline
    assert now == "S"
    assert Path(f"/proc/{command.pid}/exe").samefile("/proc/self/exe")
    assert not mark.exists()
    command.release()
    assert command.status() == 0
    assert mark.exists()


@pytest.mark.parametrize("status", [0, 1, 7, 255])
def test_exit_status(status: int, start: Start) -> None:
    command = start("sh", "-c", f"exit {status}")
    command.release()
    assert command.status() == status
    assert command.status() == status


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Where the tests run in the background, SIGINT is ignored, and programs inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_a_command_that_a_signal_ends(number: signal.Signals, start: Start) -> None:
    command = start("sh", "-c", f"kill -{number} $$")
    command.release()
    assert command.status() == 128 + number


def test_the_program_ends_by_sigpipe_as_it_would_without_us(start: Start) -> None:
    command = start("sh", "-c", "kill -PIPE $$")
    command.release()
    assert command.status() == 128 + signal.SIGPIPE


def test_arguments_are_passed_as_they_are(start: Start, capfd: pytest.CaptureFixture[str]) -> None:
    command = start("printf", "%s|", "a b", "", "*", "--help", "'\"")
    command.release()
    assert command.status() == 0
    assert capfd.readouterr().out == "a b||*|--help|'\"|"


def test_a_program_that_is_not_there(start: Start) -> None:
    with pytest.raises(UsageError, match="cannot run 'no-such-program': "):
        start("no-such-program", "-x").release()


@pytest.mark.parametrize(
    ("mode", "text", "reason"),
    [
        (0o600, "#!/bin/sh\n", ""),
        (0o700, "no program\n", "Exec format error"),
        (0o700, "#!/no/such/interpreter\n", "No such file"),
    ],
)
def test_a_file_that_cannot_run(
    mode: int, text: str, reason: str, start: Start, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_text(text)
    path.chmod(mode)
    with pytest.raises(UsageError, match=f"cannot run '{path}': .*{reason}"):
        start(str(path)).release()


def test_a_command_given_up_never_runs(start: Start, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    command = start("sh", "-c", f": > {mark}")
    command.end()
    assert ended(command, 0)
    assert not mark.exists()


def test_giving_up_after_a_failed_release(start: Start, tmp_path: Path) -> None:
    (tmp_path / "file").touch(0o700)
    command = start(str(tmp_path / "file"))
    with pytest.raises(UsageError):
        command.release()
    command.end()
    assert command.status() == 127


def test_giving_up_ends_a_program_that_runs(start: Start) -> None:
    """An error after the release must not wait for a server to end by itself."""
    command = start("sleep", "1000")
    command.release()
    assert command.end() == command.status() == 128 + signal.SIGTERM


def test_end(start: Start) -> None:
    command = start("sleep", "1000")
    command.release()
    assert not ended(command, 0)
    command.end()
    assert ended(command)
    assert command.status() == 128 + signal.SIGTERM
    command.end()


def test_end_of_a_command_that_has_ended(start: Start) -> None:
    command = start("true")
    command.release()
    assert ended(command)
    command.end()
    assert command.status() == 0


def test_a_program_that_does_not_obey_goes_on(
    start: Start, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tcprism.cli.command._PATIENCE", 0.1)
    command = start("sh", "-c", "trap '' TERM; echo ready; exec sleep 1000")
    command.release()
    deadline, said = time.monotonic() + PATIENCE, ""
    while "ready" not in (said := said + capfd.readouterr().out):
        assert time.monotonic() < deadline
    assert command.end() == 0
    assert capfd.readouterr().err == f"tcprism: sh goes on, as {command.pid}\n"
    os.kill(command.pid, signal.SIGKILL)
    assert command.status() == 128 + signal.SIGKILL
