"""Output files: for their owner alone, and never by somebody else's link."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

import pytest

from tcprism.cli.output import create, opened
from tcprism.errors import OutputError
from tcprism.private_file import PrivateFile

NOBODY = 65534


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.json"


def test_a_new_file_is_private(path: Path) -> None:
    with opened(path) as output:
        output.write(b"new")
    assert (path.read_bytes(), mode(path)) == (b"new", 0o600)


def test_a_file_that_all_may_read_becomes_private(path: Path) -> None:
    path.write_text("something that is longer")
    path.chmod(0o644)
    with create(path) as output:
        output.write(b"new")
    assert (path.read_bytes(), mode(path)) == (b"new", 0o600)


def test_a_run_that_fails_changes_nothing(path: Path) -> None:
    path.write_text("precious")
    path.chmod(0o644)
    with pytest.raises(RuntimeError), opened(path):
        raise RuntimeError("the hooks did not load")
    assert (path.read_text(), mode(path)) == ("precious", 0o644)


def test_a_run_that_fails_leaves_no_file(path: Path) -> None:
    with pytest.raises(RuntimeError), opened(path):
        raise RuntimeError("the hooks did not load")
    assert not path.exists()


def test_a_run_that_wrote_keeps_the_file(path: Path) -> None:
    def fail(output: BinaryIO) -> None:
        output.write(b"new")
        raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError), opened(path) as output:
        fail(output)
    assert path.read_bytes() == b"new"


def test_ones_own_link_is_followed(path: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    path.symlink_to(tmp_path / "file")
    with opened(path) as output:
        output.write(b"new")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert path.is_symlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_link_of_somebody_else_is_not_followed(path: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    path.symlink_to(tmp_path / "file")
    os.lchown(path, NOBODY, NOBODY)
    with pytest.raises(OutputError, match=f"it is a link of user {NOBODY}; name the file itself"):
        PrivateFile(path)
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_of_somebody_else_is_told(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.write_text("old")
    os.chown(path, NOBODY, NOBODY)
    with opened(path) as output:
        output.write(b"new")
    assert mode(path) == 0o600
    said = capsys.readouterr().err
    assert said == f"tcprism: {path} belongs to user {NOBODY}, who may read it\n"


def test_a_device_is_written_to_as_it_is() -> None:
    before = mode(Path("/dev/null"))
    with opened(Path("/dev/null")) as output:
        output.write(b"new")
    assert mode(Path("/dev/null")) == before


def test_a_new_file_replaces_none(path: Path) -> None:
    path.write_text("precious")
    with pytest.raises(OutputError, match="File exists"):
        PrivateFile(path, new=True)
    assert path.read_text() == "precious"
