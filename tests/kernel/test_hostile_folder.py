"""What lies in the current folder, or first in PATH, is never run: tcprism is run as root."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.tracer import PATIENCE, TCPRISM

pytestmark = pytest.mark.native

MODULES = ("random", "socket", "threading", "pathlib", "numpy", "click", "ctypes", "subprocess")
HELPERS = ("ip", "tc", "nft", "unshare", "nsenter", "cat", "docker", "podman", "ldconfig", "uname")


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Be in a folder full of traps; whatever is run there leaves this file."""
    here, mark = tmp_path / "here", tmp_path / "mark"
    python = f"open({str(mark)!r}, 'a').write(__file__ + '\\n')\n"
    for name in ("tcprism", "tcprism/demo", "tcprism/cli"):
        (here / name).mkdir(parents=True)
        for file in ("__init__.py", "__main__.py", "processes.py"):
            (here / name / file).write_text(python)
    for name in MODULES:
        (here / f"{name}.py").write_text(python)
    for name in HELPERS:
        (here / name).write_text(f'#!/bin/sh\necho "$0" >> {mark}\nexit 1\n')
        (here / name).chmod(0o755)
    monkeypatch.chdir(here)
    monkeypatch.setenv("PATH", f"{here}:.:{os.environ['PATH']}")
    return mark


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)


def test_the_traps_work(mark: Path) -> None:
    """The tests below can fail."""
    run("ip")
    run(sys.executable, "-m", "tcprism.demo")
    assert {Path(line).name for line in mark.read_text().splitlines()} >= {"ip", "__main__.py"}


@pytest.mark.parametrize(
    "arguments",
    [
        ("demo", "--duration", "0.5"),
        ("trace", "--duration", "0.1", "--port", "1"),
        ("explain", "--duration", "0.3"),
        ("top", "--plain", "--help"),
        ("doctor",),
    ],
    ids=lambda arguments: arguments[0],
)
def test_the_command_runs_nothing_of_the_folder(arguments: tuple[str, ...], mark: Path) -> None:
    done = run(TCPRISM, *arguments)
    assert "Traceback" not in done.stderr
    assert not mark.exists(), mark.read_text()
    if arguments[0] == "demo":
        assert "lo loses" in done.stderr


def test_as_a_module_it_is_safe_where_python_is_told_so(mark: Path) -> None:
    done = run(sys.executable, "-P", "-m", "tcprism", "demo", "--duration", "0.5")
    assert (done.returncode, mark.exists()) == (0, False), done.stderr


def test_as_a_module_it_forgets_the_folder(mark: Path) -> None:
    """Where there is no package of our name and nothing that Python itself imports before us."""
    for path in (Path("tcprism"), Path("pathlib.py")):
        path.rename(f"no-{path}")
    done = run(sys.executable, "-m", "tcprism", "trace", "--duration", "0.1", "--port", "1")
    assert (done.returncode, mark.exists()) == (0, False), done.stderr
