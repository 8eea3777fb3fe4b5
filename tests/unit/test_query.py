"""SQL over recordings, as users ask for it."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

import tcprism
from tcprism.events import FAMILIES, Batch
from tcprism.recording.queries import QUERIES
from tcprism.recording.sql import VIEWS, Database
from tcprism.recording.writer import Writer

from .recordings import CLOCK_OFFSET_NS, FACTS, random_part, recorded
from .test_recording import stream_with

SAMPLE = str(files("tcprism").joinpath("sample.tcpr"))
TCPRISM = str(Path(sys.executable).with_name("tcprism"))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of every family in several batches."""
    made = [
        Batch([random_part(family, 50, seed) for family in FAMILIES], CLOCK_OFFSET_NS)
        for seed in range(3)
    ]
    target = tmp_path_factory.mktemp("query") / "run.tcpr"
    target.write_bytes(recorded(made))
    return target


def ask(path: Path | str, sql: str) -> list[tuple[object, ...]]:
    with Database(path) as database:
        _, rows = database.query(sql)
        return list(rows)


def test_every_column_of_every_event(path: Path) -> None:
    """The view says what the events say."""
    events = list(tcprism.open(path))
    with Database(path) as database:
        names, rows = database.query("SELECT * EXCLUDE (time) FROM events")
        for event, row in zip(events, rows, strict=True):
            for name, value in zip(names, row, strict=True):
                if not name.endswith("_bytes"):
                    assert getattr(event, name) == value, name


def test_time(path: Path) -> None:
    whole = ask(path, "SELECT epoch_ns(time) FROM events")
    offset = CLOCK_OFFSET_NS
    assert [row[0] for row in whole] == [event.ts_ns + offset for event in tcprism.open(path)]


def test_sums_and_filters(path: Path) -> None:
    events = list(tcprism.open(path))
    sent = [event for event in events if event.kind == "send" and event.bytes > 1000]
    sql = "SELECT count(*), sum(bytes) FROM events WHERE kind = 'send' AND bytes > 1000"
    assert ask(path, sql) == [(len(sent), sum(event.bytes for event in sent))]
    owned = {event.comm for event in events if event.pid}
    sql = "SELECT count(DISTINCT comm) FROM events WHERE pid IS NOT NULL"
    assert ask(path, sql) == [(len(owned),)]


@pytest.mark.parametrize("view", VIEWS)
def test_views(view: str, path: Path) -> None:
    kinds = {
        "events": {event.kind for event in tcprism.open(path)},
        "messages": {"send", "recv"},
        "segments": {"transmit", "probe", "retransmit"},
        "retransmits": {"retransmit"},
        "connections": {"close"},
    }[view]
    events = [event for event in tcprism.open(path) if event.kind in kinds]
    assert ask(path, f"SELECT count(*) FROM {view}") == [(len(events),)]


def test_a_view_joined_with_itself(path: Path) -> None:
    sql = "SELECT count(*) FROM events a JOIN events b USING (ts_ns, kind)"
    ((count,),) = ask(path, sql)
    assert count == sum(1 for _ in tcprism.open(path))


@pytest.mark.parametrize("name", QUERIES)
def test_named_queries_of_the_sample(name: str) -> None:
    """Each has an answer about the demo's traffic."""
    rows = ask(SAMPLE, QUERIES[name].sql)
    assert rows
    said = str(rows)
    assert {
        "top-talkers": "demo-server",
        "retransmits": "demo-server",
        "slowest-connects": "demo-reader",
        "rtt": "datetime",
        "who-talks-to-whom": "8080",
    }[name] in said


def documented() -> list[str]:
    """Return the queries that docs/query.md has as blocks of SQL."""
    text = (Path(__file__).resolve().parents[2] / "docs/query.md").read_text()
    return re.findall(r"^    (SELECT .*(?:\n    .*)*)", text, re.MULTILINE)


@pytest.mark.parametrize("sql", documented())
def test_what_the_documentation_shows(sql: str) -> None:
    assert ask(SAMPLE, sql)


def test_all_named_queries_are_documented() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs/query.md").read_text()
    for name, query in QUERIES.items():
        assert f"| `{name}` | {query.title}" in text


def test_a_recording_that_is_still_written(tmp_path: Path) -> None:
    target = tmp_path / "run.tcpr"
    with target.open("wb") as file, Database(written_to(file, target)) as database:
        assert list(database.query("SELECT count(*) FROM events")[1]) == [(20,)]
        assert "still being written" in database.trouble[0]


def written_to(file: io.BufferedWriter, target: Path) -> Path:
    writer = Writer(file, FACTS)
    writer.write(Batch([random_part("segment", 20, 1)]))
    writer.flush()
    return target


def query(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([TCPRISM, "query", *arguments], capture_output=True, text=True)


def test_formats() -> None:
    sql = "SELECT comm, payload, 1.5 AS half, NULL AS no FROM messages WHERE bytes = 43 LIMIT 1"
    table = query(SAMPLE, sql).stdout.splitlines()
    assert table[0].split() == ["comm", "payload", "half", "no"]
    assert r"HTTP/1.1 201 Created\x0d\x0a" in table[2]
    (line,) = query(SAMPLE, sql, "--format", "json").stdout.splitlines()
    assert json.loads(line)["half"] == 1.5
    assert json.loads(line)["no"] is None
    (row,) = csv.DictReader(io.StringIO(query(SAMPLE, sql, "--format", "csv").stdout))
    assert row["payload"] == json.loads(line)["payload"]


def test_list() -> None:
    told = query("--list").stdout
    for name, named in QUERIES.items():
        assert f"{name}: {named.title}" in told


def test_by_name() -> None:
    done = query(SAMPLE, "top-talkers")
    assert done.returncode == 0
    assert "demo-uploader" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["/nonexistent.tcpr", "SELECT 1"], 1, "cannot read /nonexistent.tcpr"),
        ([SAMPLE, "SELEC 1"], 2, "syntax error"),
        ([SAMPLE, "SELECT nope FROM events"], 2, "nope"),
        ([SAMPLE, "SELECT 1/0 + 'x'::INT FROM events"], 2, "Could not convert"),
        ([SAMPLE], 2, "give a recording and a query"),
        (["-", "SELECT 1"], 2, "not a pipe"),
    ],
)
def test_one_sentence(arguments: list[str], status: int, sentence: str) -> None:
    done = query(*arguments)
    assert done.returncode == status
    assert done.stdout == "" or status == 2
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_later_version(tmp_path: Path) -> None:
    target = stream_with(tmp_path / "run.tcpr", {b"tcprism": b'{"version": 9, "kinds": []}'})
    done = query(str(target), "SELECT 1")
    assert done.returncode == 1
    assert "take a newer tcprism" in done.stderr


def test_cut_off(path: Path, tmp_path: Path) -> None:
    """What is there is the answer, and what is missing is said."""
    target = tmp_path / "run.tcpr"
    target.write_bytes(path.read_bytes()[:-20_000])
    done = query(str(target), "SELECT count(*) AS n FROM events", "--format", "csv")
    assert done.returncode == 0
    assert done.stdout == "n\n500\n"
    assert "ends without its last batch" in done.stderr
