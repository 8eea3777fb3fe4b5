"""The command line as a whole: what it imports, and how it ends."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from importlib.resources import files
from pathlib import Path

import click
import pytest

import tcprism
import tcprism.cli.program as command_line
from tcprism import errors
from tcprism.cli.output import opened

SAMPLE = files("tcprism").joinpath("sample.tcpr")

HEAVY = {
    "numpy",
    "rich",
    "rich_click",
    "ctypes",
    "tcprism.sources.tracing",
    "tcprism.events",
    "pandas",
}
TELL_IMPORTS = f"""
import sys
from tcprism.cli import main
try:
    main()
finally:
    print(*sorted(set(sys.modules) & {HEAVY!r}), file=sys.stderr)
"""


def tcprism_with(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run tcprism; stderr tells which of the heavy modules it imported."""
    command = [sys.executable, "-c", TELL_IMPORTS, *arguments]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_lists_the_commands_and_imports_little(option: str) -> None:
    done = tcprism_with(option)
    assert done.returncode == 0
    assert done.stderr.split() == []
    listed = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")]
    for name in ("trace", "doctor", "demo"):
        assert name in listed


def test_version_imports_little() -> None:
    done = tcprism_with("--version")
    assert (done.returncode, done.stdout) == (0, f"tcprism {tcprism.__version__}\n")
    assert done.stderr.split() == []


def test_imports_are_told() -> None:
    """The check above can fail: a command's own help imports NumPy."""
    assert "numpy" in tcprism_with("trace", "--help").stderr.split()


@pytest.mark.parametrize("form", ["json", "csv", "arrow", "parquet"])
def test_recordings_are_read_without_pandas(form: str, tmp_path: Path) -> None:
    """PyArrow imports it, where it is installed, as soon as it makes an array of a list."""
    done = tcprism_with("export", str(SAMPLE), "--to", form, "-o", str(tmp_path / "out"))
    assert done.returncode == 0
    assert "numpy" in done.stderr.split()
    assert "pandas" not in done.stderr.split()


@pytest.mark.parametrize("name", command_line.COMMANDS)
def test_each_command_is_there_and_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert isinstance(import_module(f"tcprism.cli.{name}").command, click.Command)
    assert run(name, "--help") == 0
    assert f"Usage: tcprism {name} " in capsys.readouterr().out


def run(*arguments: str) -> int:
    """Run the command line in this process; return its exit status."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["tcprism", *arguments])
        with pytest.raises(SystemExit) as caught:
            command_line.main()
    status = caught.value.code
    assert isinstance(status, int)
    return status


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("trace", "--port", "0"), "tcprism: --port: '0' is not a port"),
        (("trace", "--kinds", "x"), "tcprism: --kinds: 'x' is not a kind"),
        (("trace", "--payload", "99999"), "tcprism: --payload: 99999 is not between"),
        (("trace", "--ring-size", "3"), "tcprism: --ring-size: '3' is not a size from 64K to 1G"),
        (
            ("serve", "--kinds", "close", "--redact-also", "("),
            "tcprism: --redact-also: '(' is no regular expression: missing )",
        ),
        (("trace", "--follow"), "tcprism: --follow needs the processes"),
        (("trace", "--netns", "nowhere"), "tcprism: --netns: nowhere is no network namespace"),
        (("connections", "--duration", "0"), "--duration"),
        (
            ("connections", "--netns", "nowhere"),
            "tcprism: --netns: nowhere is no network",
        ),
        (("retransmits", "--count", "0"), "--count"),
        (("retransmits", "--kinds", "send"), "--kinds"),
        (("trace", "--no-such-option"), "--no-such-option"),
        (("trace", "--count", "0"), "--count"),
        (("trace", "--duration", "0"), "--duration"),
        (("no-such-command",), "no-such-command"),
        (("trace", "--no-such-option"), "see `tcprism trace --help`"),
        (("trace", "--"), "tcprism: -- must be followed by a command"),
        (("trace", "--port", "1", "--"), "tcprism: -- must be followed by a command"),
        (("trace", "--", "/etc/passwd"), "cannot run '/etc/passwd': it is not an executable file"),
    ],
)
def test_a_request_that_makes_no_sense(
    arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert shown.out == ""


def test_a_command_line_that_makes_no_sense_runs_no_command(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert run("trace", "--port", "0", "--", "echo", "ran") == 2
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("closed", "arguments"),
    [("1", "--version"), ("1", f"replay {SAMPLE}"), ("2", "trace --port 0")],
)
def test_closed_streams(closed: str, arguments: str) -> None:
    """Nothing takes the place of a stream that is closed."""
    script = f'exec "$0" -m tcprism {arguments} {closed}>&-'
    done = subprocess.run(["sh", "-c", script, sys.executable], capture_output=True, text=True)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [["export", "--to", "json"], ["replay"]])
def test_a_recording_is_not_written_over_by_what_is_read_from_it(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, link = tmp_path / "run.tcpr", tmp_path / "link"
    path.write_bytes(SAMPLE.read_bytes())
    link.symlink_to(path)
    for source, output in ((path, path), (path, link), (tmp_path, path)):
        assert run(*command, str(source), "-o", str(output)) == 2
        assert "is the recording that is read" in capsys.readouterr().err
    assert path.read_bytes() == SAMPLE.read_bytes()


@pytest.mark.parametrize(
    "arguments", [["--help"], ["query", "--list"], ["explain", SAMPLE], ["top", SAMPLE, "--plain"]]
)
def test_a_full_disk_is_told_in_one_sentence(arguments: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "tcprism", *map(str, arguments)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 1
    assert done.stderr == "tcprism: cannot write the output: No space left on device\n"


def test_a_file_is_replaced_by_what_is_new(tmp_path: Path) -> None:
    path = tmp_path / "events"
    path.write_text("precious")
    with pytest.raises(RuntimeError), opened(path):
        raise RuntimeError("the hooks did not load")
    assert path.read_text() == "precious"
    with opened(path) as output:
        output.write(b"new")
    assert path.read_text() == "new"
    with opened(path):
        pass
    assert path.read_text() == ""


def test_no_threads_for_linear_algebra(monkeypatch: pytest.MonkeyPatch) -> None:
    """They cost as much as all of NumPy; and what is traced finds its environment as it was."""
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    code = (
        "import os, tcprism.cli.program as cli; cli.cli.get_command(None, 'trace');"
        "print(len(os.listdir('/proc/self/task')), os.environ.get('OPENBLAS_NUM_THREADS'))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.split() == ["1", "None"]


def test_without_a_command_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 2
    shown = capsys.readouterr()
    assert "Usage: tcprism" in shown.out + shown.err


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.Error("what happened"), 1),
        (errors.UsageError("what happened"), 2),
        (errors.UnknownTarget("what happened"), 2),
        (errors.PermissionMissing("what happened"), 1),
        (errors.LibraryMissing("what happened"), 1),
        (errors.KernelRefused("what happened"), 1),
        (errors.OutputError("what happened"), 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_an_error_is_one_sentence_and_an_exit_status(
    error: errors.Error,
    status: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr(command_line.cli, "main", fail)
    assert run("trace") == status
    assert capsys.readouterr().err == "tcprism: what happened\n"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_an_interrupt_ends_as_a_shell_would_tell_it(
    error: BaseException, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(**_: object) -> None:
        raise error

    monkeypatch.setattr(command_line.cli, "main", interrupted)
    assert run("trace") == 130
    assert capsys.readouterr().err == ""


def test_the_account_is_one_line_unless_asked_for(capfd: pytest.CaptureFixture[str]) -> None:
    replay = ("replay", str(SAMPLE), "--output", "/dev/null")
    assert run(*replay) == 0
    assert capfd.readouterr().err.splitlines() == ["868 events, none lost"]
    assert run(*replay, "--quiet") == 0
    assert capfd.readouterr().err == ""
    assert run(*replay, "-v") == 0
    assert capfd.readouterr().err.split()[:2] == ["kind", "seen"]


def test_a_replay_says_what_its_requests_lack() -> None:
    """Of six requests of 30 bytes and six of 41, the first 20 are left."""
    ended = tcprism_with("replay", "--sample", "--as", "requests", "--payload", "20")
    assert f"{6 * (30 - 20) + 6 * (41 - 20)} bytes were not captured in which" in ended.stderr
