"""The examples that need no root run, over the recording that ships."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PLUGIN = EXAMPLES / "plugin"
SAMPLE = str(files("tcprism").joinpath("sample.tcpr"))
TCPRISM = str(Path(sys.executable).with_name("tcprism"))


def test_reading_a_recording() -> None:
    command = [sys.executable, str(EXAMPLES / "read_recording.py"), SAMPLE]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stderr == ""
    assert "bytes again" in done.stdout
    assert "slowest connect: " in done.stdout
    assert "demo-server" in done.stdout


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the plug-in installed, as pip would do it, for processes started from here."""
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]
    place = tmp_path / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    place.mkdir()
    name, version = project["name"], project["version"]
    (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    with (place / "entry_points.txt").open("w") as file:
        for group, entries in project["entry-points"].items():
            print(f"[{group}]", *(f"{key} = {value}" for key, value in entries.items()), sep="\n",
                  file=file)  # fmt: skip
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(PLUGIN)]))


def tcprism(*arguments: str) -> str:
    done = subprocess.run([TCPRISM, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.usefixtures("installed")
def test_a_stage_by_its_name() -> None:
    plain = tcprism("replay", "--sample", "--kinds", "send", "--format", "json")
    redacted = tcprism("replay", "--sample", "--kinds", "send", "--stage", "redact")
    assert "HTTP/1.1 200 OK" in plain
    assert "HTTP/#.# ### OK" in redacted


@pytest.mark.usefixtures("installed")
def test_a_sink_by_its_name() -> None:
    for command in (["replay", "--sample", "--format", "per-peer"],
                    ["export", SAMPLE, "--to", "per-peer", "-o", "-"]):  # fmt: skip
        lines = tcprism(*command).splitlines()
        assert sorted(line.split()[1] for line in lines) == ["127.0.0.1", "::1"]


@pytest.mark.usefixtures("installed")
def test_what_is_not_there_is_refused_with_what_is() -> None:
    command = [TCPRISM, "replay", "--sample", "--format", "nope"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "choose from text, json, csv, arrow, parquet, pcapng, per-peer" in done.stderr
