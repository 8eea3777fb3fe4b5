"""The examples that need no root run, over the recording that ships."""

from __future__ import annotations

import json
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
TCPRISM = (sys.executable, "-m", "tcprism")  # the command itself does not obey PYTHONPATH


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
    done = subprocess.run([*TCPRISM, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.usefixtures("installed")
def test_a_stage_by_its_name() -> None:
    plain = tcprism("replay", "--sample", "--kinds", "send", "--format", "json")
    redacted = tcprism("replay", "--sample", "--kinds", "send", "--stage", "redact")
    assert "HTTP/1.1 200 OK" in plain
    assert "HTTP/#.# ### OK" in redacted


@pytest.mark.usefixtures("installed")
def test_a_stage_that_makes_events_of_its_own_kind() -> None:
    """What stands in the payloads of the sample is what the stage makes answers of."""
    plain = tcprism("replay", "--sample", "--kinds", "recv", "--format", "json")
    payloads = [json.loads(line)["payload_text"] or "" for line in plain.splitlines()]
    wanted = [text[9:].split("\\x0d")[0] for text in payloads if text.startswith("HTTP/1.")]
    shown = tcprism("replay", "--sample", "--stage", "answers", "--format", "json")
    events = [json.loads(line) for line in shown.splitlines()]
    answers = [event for event in events if event["kind"] == "answer"]
    assert [f"{event['code']} {event['phrase']}" for event in answers] == wanted
    assert wanted
    text = tcprism("replay", "--sample", "--stage", "answers", "--format", "text")
    line = next(line for line in text.splitlines() if line[16:22] == "answer")
    assert line.endswith(f" {wanted[0]}")


@pytest.mark.usefixtures("installed")
def test_a_recording_of_events_that_a_package_makes(tmp_path: Path) -> None:
    """Who reads it needs no stage: the package's family is found by its entry point."""
    path = tmp_path / "answers.tcpr"
    script = """if True:
        import sys, tcprism
        from tcprism_answers import Answers
        from tcprism.recording.writer import Writer
        recording = tcprism.open(sys.argv[1])
        with open(sys.argv[2], "wb") as file:
            writer, stage = Writer(file, recording.facts), Answers()
            for batch in recording.batches():
                writer.write(stage(batch))
            writer.close()
    """
    subprocess.run([sys.executable, "-c", script, SAMPLE, str(path)], check=True)
    lines = tcprism("replay", str(path), "--kinds", "answer", "--format", "json").splitlines()
    assert {json.loads(line)["phrase"] for line in lines} >= {"OK", "Created"}
    counted = tcprism("query", str(path), "SELECT count(*) AS n FROM answers WHERE code >= 200")
    assert str(len(lines)) in counted


SAY_ECHO = """if True:
    import sys
    from tcprism.events import Batch
    from tcprism.events.facts import Facts
    from tcprism.recording.writer import Writer
    from tests.unit.test_requests import ANSWERS, AT_CLIENT, AT_SERVER, EventKind, Talk
    talk = Talk()
    for who, kind in ((AT_CLIENT, EventKind.SEND), (AT_SERVER, EventKind.RECV)):
        talk.add(who, kind, 100, b"ECHO hello\\r\\n")
    for who, kind in ((AT_SERVER, EventKind.SEND), (AT_CLIENT, EventKind.RECV)):
        talk.add(who, kind, ANSWERS, b"SAID hello\\r\\n")
    with open(sys.argv[1], "wb") as file:
        writer = Writer(file, Facts(("send", "recv"), payload=64))
        writer.write(talk.batch)
        writer.close()
"""
SHOW_IN_TOP = """if True:
    import sys, tcprism
    from tcprism.diagnosis.request_history import RequestHistory
    history = RequestHistory()
    for batch in tcprism.open(sys.argv[1]).batches():
        history.add(batch)
    print(*history.routes)
"""


@pytest.mark.usefixtures("installed")
def test_a_protocol_that_a_package_reads_is_read_wherever_requests_are(tmp_path: Path) -> None:
    path, root = str(tmp_path / "echo.tcpr"), Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", SAY_ECHO, path], check=True, cwd=root)
    shown = tcprism("replay", path, "--as", "requests", "--format", "json")
    assert [json.loads(line)["protocol"] for line in shown.splitlines()] == ["echo"]
    pytest.importorskip("ddsketch")
    command = [sys.executable, "-c", SHOW_IN_TOP, path]
    assert subprocess.check_output(command, text=True) == "echo ECHO ?\n"


@pytest.mark.usefixtures("installed")
def test_a_sink_by_its_name() -> None:
    for command in (["replay", "--sample", "--format", "per-peer"],
                    ["export", SAMPLE, "--to", "per-peer", "-o", "-"]):  # fmt: skip
        lines = tcprism(*command).splitlines()
        assert sorted(line.split()[1] for line in lines) == ["127.0.0.1", "::1"]


@pytest.mark.usefixtures("installed")
def test_what_is_not_there_is_refused_with_what_is() -> None:
    command = [*TCPRISM, "replay", "--sample", "--format", "nope"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "choose from text, json, csv, arrow, parquet, pcapng, per-peer" in done.stderr
