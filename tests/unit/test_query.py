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
from typing import Any

import pytest

import tcprism
from tcprism.errors import UsageError
from tcprism.events import FAMILIES, Batch, Part
from tcprism.events._wire import EventKind
from tcprism.events.names import STATES
from tcprism.recording.queries import QUERIES
from tcprism.recording.sql import VIEWS, Database
from tcprism.recording.writer import Writer
from tcprism.stages.requests import requests_of

from .recordings import CLOCK_OFFSET_NS, FACTS, random_part, recorded
from .records import Fields, connections, losses, messages, snapshots
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
    with Database(path, made={"request": requests_of}) as database:
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
    if name == "failed-requests":
        assert not rows  # the demo's server answers each
        return
    assert rows
    said = str(rows)
    assert {
        "top-talkers": "demo-server",
        "retransmits": "demo-server",
        "slowest-connects": "demo-reader",
        "slowest-answers": "demo-reader",
        "slowest-requests": "/report.json",
        "requests-by-route": "POST",
        "requests-hurt-by-retransmission": "tlp",
        "rtt": "datetime",
        "who-talks-to-whom": "8080",
    }[name] in said


MS = 1_000_000
TO_SERVICE: Fields = {"netns": 1, "socket": 7, "local_ip": "192.0.2.1", "local_port": 40_000,
              "remote_ip": "192.0.2.9", "remote_port": 50_000}  # fmt: skip
OF_SERVICE: Fields = {"netns": 2, "socket": 8, "local_ip": "192.0.2.9", "local_port": 50_000,
              "remote_ip": "192.0.2.1", "remote_port": 40_000}  # fmt: skip


def rows_of(tmp_path: Path, name: str, *parts: Part) -> list[dict[str, object]]:
    """Return what a query that ships says of events."""
    target = tmp_path / "made.tcpr"
    target.write_bytes(recorded([Batch(list(parts), CLOCK_OFFSET_NS)]))
    with Database(target) as database:
        names, rows = database.query(QUERIES[name].sql)
        return [dict(zip(names, row, strict=True)) for row in rows]


HEARD = {
    "accept": connections({"kind": EventKind.ACCEPT, "ts_ns": 1, **OF_SERVICE}),
    "snapshot": snapshots(
        {"ts_ns": 1, "netns": 2, "state": STATES.index("LISTEN"), "local_port": 50_000}
    ),
    "connect": connections({"kind": EventKind.CONNECT, "ts_ns": 1, **TO_SERVICE}),
}


@pytest.mark.parametrize(
    ("heard", "ends"),
    [("accept", OF_SERVICE), ("snapshot", OF_SERVICE), ("connect", TO_SERVICE)],
)
def test_the_service_port_is_the_listeners(heard: str, ends: Fields, tmp_path: Path) -> None:
    """It is the higher one here."""
    again = losses(*({**ends, "ts_ns": 9 + n, "segs": 1, "cause": 1} for n in range(2)))
    (row,) = rows_of(tmp_path, "retransmits", HEARD[heard], again)
    assert (row["service_port"], row["segments"]) == (50_000, 2)
    said = messages({**ends, "ts_ns": 5, "payload": b"x"})
    (row,) = rows_of(tmp_path, "who-talks-to-whom", HEARD[heard], said)
    assert row["service_port"] == 50_000


def test_unheard_of_services_have_the_lower_port(tmp_path: Path) -> None:
    (row,) = rows_of(tmp_path, "retransmits", losses({**TO_SERVICE, "ts_ns": 9, "segs": 1}))
    assert row["service_port"] == 40_000


def test_slowest_answers_are_those_that_were_made_slow(tmp_path: Path) -> None:
    """From the last send of a request to the first receive of its answer, at either end."""

    def call(ends: Fields, kind: str, ms: int, text: bytes, **more: Any) -> Fields:
        return {**ends, "kind": EventKind[kind], "ts_ns": ms * MS, "payload": text, **more}

    talk = messages(
        call(TO_SERVICE, "SEND", 10, b"head"),
        call(TO_SERVICE, "SEND", 20, b"body"),
        call(OF_SERVICE, "RECV", 25, b"headbody"),
        call(OF_SERVICE, "SEND", 325, b"slow"),
        call(TO_SERVICE, "RECV", 330, b"sl"),
        call(TO_SERVICE, "RECV", 900, b"ow"),
        call(TO_SERVICE, "SEND", 2000, b"quick?"),
        call(TO_SERVICE, "RECV", 2001, b"yes"),
        call(TO_SERVICE, "RECV", 9000, b"", bytes=0),
    )  # fmt: skip
    rows = rows_of(tmp_path, "slowest-answers", HEARD["accept"], HEARD["connect"], talk)
    assert [(row["side"], row["ms"], row["request"]) for row in rows] == [
        ("client", 310, "body"),
        ("server", 300, "headbody"),
        ("client", 1, "quick?"),
    ]


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


def test_structures_hold_what_columns_hold() -> None:
    """Bytes in base64 and times as RFC 3339 at every depth; JSON has no number that is none."""
    at = "TIMESTAMP '2026-01-02 03:04:05'"
    sql = (
        f"SELECT {{'a': '\\xff'::BLOB, 'b': [{at}]}} AS one, MAP {{'x'::BLOB: 1}} AS two,"
        " ['nan'::DOUBLE, 2] AS three, 'inf'::DOUBLE AS four"
    )
    expected = {
        "one": {"a": "/w==", "b": ["2026-01-02T03:04:05"]},
        "two": {"eA==": 1},
        "three": [None, 2.0],
        "four": None,
    }
    (line,) = query(SAMPLE, sql, "--format", "json").stdout.splitlines()
    assert json.loads(line) == expected
    (row,) = csv.DictReader(io.StringIO(query(SAMPLE, sql, "--format", "csv").stdout))
    assert row.pop("four") == ""
    assert all(json.loads(text) == expected[name] for name, text in row.items())


def test_json_needs_a_name_for_each_column() -> None:
    done = query(SAMPLE, "SELECT 1 AS a, 2 AS a", "--format", "json")
    assert (done.returncode, done.stdout) == (2, "")
    assert "several columns are called a: name them apart" in done.stderr
    assert query(SAMPLE, "SELECT 1 AS a, 2 AS a", "--format", "csv").stdout == "a,a\n1,2\n"


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
    assert done.stdout == f"n\n{2 * 50 * len(FAMILIES)}\n"  # of three batches
    assert "ends without its last batch" in done.stderr


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_text('{file}')",
        "SELECT * FROM read_csv('/etc/passwd')",
        "FROM '{file}'",
        "SELECT * FROM glob('/etc/*')",
        "COPY (SELECT 1) TO '{new}'",
        "EXPORT DATABASE '{new}'",
        "ATTACH '{new}'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET memory_limit = '100GB'",
        "RESET memory_limit",
        "SET enable_external_access = true",
        "SET lock_configuration = false",
        "PRAGMA profiling_output = '{new}'",
        "CALL enable_logging(storage = 'file', storage_config = {{'path': '{new}'}})",
        "CREATE SECRET hidden (TYPE s3)",
        "SELECT * FROM self",  # a variable of this program
        "SELECT getenv('HOME')",
    ],
)
def test_a_query_reaches_nothing_but_the_recording(path: Path, tmp_path: Path, sql: str) -> None:
    there = tmp_path / "there.csv"
    there.write_text("a\n1\n")
    with pytest.raises(UsageError):
        ask(path, sql.format(file=there, new=tmp_path / "new"))
    assert [*tmp_path.iterdir()] == [there]


@pytest.mark.parametrize("columns", ["count(*)", "*"])
def test_a_query_that_takes_too_long_is_given_up(path: Path, columns: str) -> None:
    """Whether its first row never comes, or its last one."""
    endless = f"SELECT {columns} FROM range(1000000000000)"
    with (
        Database(path, seconds=0.2) as database,
        pytest.raises(UsageError, match=r"takes longer than 0\.2 s"),
    ):
        for _ in database.query(endless)[1]:
            pass


def test_files_are_allowed_by_an_option(path: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.csv"
    sql = f"COPY (SELECT 7 AS seven) TO '{new}'"
    denied = subprocess.run([TCPRISM, "query", path, sql], capture_output=True, text=True)
    assert denied.returncode == 2
    assert "--allow-files" in denied.stderr
    assert not new.exists()
    subprocess.run([TCPRISM, "query", "--allow-files", path, sql], check=True, capture_output=True)
    assert new.read_text() == "seven\n7\n"


@pytest.mark.parametrize("sql", ["SELECT 1; SELECT 2", "SET threads = 1; SELECT 1", "", "-- none"])
def test_a_query_is_one_statement(path: Path, sql: str) -> None:
    with pytest.raises(UsageError, match=r"statements|empty"):
        ask(path, sql)


def test_what_follows_a_statement_may_be_nothing(path: Path) -> None:
    assert ask(path, "SELECT 1; -- that is all") == [(1,)]
    assert ask(path, "PIVOT (SELECT 'a' x, 1 y) ON x USING sum(y)") == [(1,)]


def test_a_query_that_is_not_utf_8(path: Path) -> None:
    result = subprocess.run([TCPRISM, "query", path, b"SELECT '\xff'"], capture_output=True)
    assert result.returncode == 2
    assert b"UTF-8" in result.stderr
    assert b"Traceback" not in result.stderr


def test_csv_has_no_formulas_and_no_control_characters(path: Path) -> None:
    """A spreadsheet would take the cell for a formula, a terminal for a command."""
    sql = "SELECT '=1+1' AS \"@a\", '-2' AS b, -2 AS c, -2.5 AS d, chr(27) || 'e' AS e, chr(9) AS f"
    result = subprocess.run(
        [TCPRISM, "query", "--format", "csv", path, sql], capture_output=True, text=True, check=True
    )
    assert [*csv.reader(io.StringIO(result.stdout))] == [
        ["'@a", "b", "c", "d", "e", "f"],
        ["'=1+1", "'-2", "-2", "-2.5", r"\x1be", r"\x09"],
    ]


def test_names_of_columns_are_shown_without_control_characters(path: Path) -> None:
    sql = "PIVOT (SELECT chr(27) x, 1 y) ON x USING sum(y)"
    for form in ("table", "csv", "json"):
        result = subprocess.run(
            [TCPRISM, "query", "--format", form, path, sql], capture_output=True, check=True
        )
        assert b"\x1b" not in result.stdout
        assert b"1" in result.stdout
