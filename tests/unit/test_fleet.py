"""What is sent to a fleet's ClickHouse, and what waits while that is away."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import generate_fleet
from tcprism.diagnosis.fleet_feed import Fleet
from tcprism.errors import MachineError, ServerError, UsageError
from tcprism.events import Batch, Part
from tcprism.events.facts import Facts
from tcprism.events.ledger import Entry, Ledger
from tcprism.filter_texts import parse_recorded
from tcprism.fleet import schema, tail
from tcprism.fleet import sink as sinks
from tcprism.fleet.address import Address, Credentials, credentials
from tcprism.fleet.outbox import Outbox, Spool
from tcprism.fleet.server import Server
from tcprism.fleet.setup import initialise
from tcprism.fleet.sink import ClickHouse
from tcprism.fleet.tables import OF_FAMILY
from tcprism.tui.model import Model
from tcprism.tui.plain import json_line, table_text
from tcprism.tui.plain_requests import requests_json
from tests.support.clickhouse import ClickHouse as Engine
from tests.support.clickhouse import clickhouse
from tests.unit import records

NOW = int(time.time())  # older rows are deleted at once
FACTS = Facts(kinds=("retransmit",), host="one", started="2026-01-01T00:00:00+00:00")


def test_the_schema_has_all_columns() -> None:
    assert generate_fleet.render_next() == "", "run tools/generate_fleet.py"
    assert generate_fleet.OUTPUT.read_text() == generate_fleet.render(), "run `make docs`"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://127.0.0.1", "http://127.0.0.1:8123/tcprism"),
        ("https://me@db.example/prod", "https://db.example:8443/prod"),
        ("http://[::1]:80/", "http://[::1]:80/tcprism"),
    ],
)
def test_addresses(text: str, shown: str) -> None:
    assert str(Address(text)) == shown


@pytest.mark.parametrize(
    "text",
    ["", "db", "ftp://db", "http://db:x", "http://db/a;b", "http://db/?password=x", "http://"],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UsageError, match="is not an address"):
        Address(text)


def test_a_password_is_not_taken_from_the_command_line() -> None:
    with pytest.raises(UsageError, match="CLICKHOUSE_PASSWORD") as raised:
        Address("http://me:secret@db")
    assert "secret" not in str(raised.value)


def test_credentials(tmp_path: Path) -> None:
    told = {"CLICKHOUSE_USER": "a", "CLICKHOUSE_PASSWORD": "b"}
    assert credentials(Address("http://db"), None, told) == Credentials("a", "b")
    assert credentials(Address("http://c@db"), None, told) == Credentials("c", "b")
    assert credentials(Address("http://db"), None, {}) == Credentials()
    path = tmp_path / "who.toml"
    path.write_text('user = "d"\npassword = "e"\nca_certificate = "/ca.pem"\n')
    path.chmod(0o600)
    found = credentials(Address("http://db"), str(path), told)
    assert found == Credentials("d", "e", "/ca.pem")
    assert found.files == (Path("/ca.pem"),)
    path.chmod(0o640)
    with pytest.raises(UsageError, match="chmod 600"):
        credentials(Address("http://db"), str(path), told)


@pytest.mark.parametrize("text", ["user = 1", 'word = "x"', "=", "\xff"])
def test_files_that_are_no_credentials(tmp_path: Path, text: str) -> None:
    path = tmp_path / "who.toml"
    path.write_text(text, "latin-1")
    with pytest.raises(UsageError, match="--credentials"):
        credentials(Address("http://db"), str(path), {})


def _balances(box: Outbox) -> bool:
    waiting = 0
    while insert := box.next(0):
        waiting += insert.rows
        box.done(insert, inserted=True)
    return box.put_rows == box.inserted + box.dropped


def test_in_memory_the_oldest_goes_and_is_counted() -> None:
    box = Outbox(room=25)
    for number in range(4):
        box.put("losses", 1 + number, bytes(10))
    assert box.dropped == 1 + 2
    insert = box.next(0)
    assert insert is not None
    assert insert.rows == 3
    assert _balances(box)


def test_what_is_being_sent_is_not_dropped() -> None:
    box = Outbox(room=25)
    box.put("losses", 1, bytes(10))
    sent = box.next(0)
    assert sent is not None
    for number in range(3):
        box.put("losses", 10 + number, bytes(10))
    box.done(sent, inserted=True)
    assert (box.inserted, box.dropped) == (1, 10 + 11)
    assert _balances(box)


def test_on_disk_it_waits_for_the_next_run(tmp_path: Path) -> None:
    box = Outbox(Spool(tmp_path, 1000))
    for number in range(3):
        box.put("losses", 1 + number, b"%d" % number)
    box.spill()
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in tmp_path.iterdir())
    (tmp_path / "mine.arrow.new").write_text("cut")
    (tmp_path / "foreign").write_text("stays")
    later = Outbox(Spool(tmp_path, 1000))
    assert later.put_rows == 6
    later.put("requests", 9, b"new")
    found = []
    while insert := later.next(0):
        found.append((insert.table, insert.rows, insert.data))
        later.done(insert, inserted=True)
    expected = [
        ("losses", 1, b"0"),
        ("losses", 2, b"1"),
        ("losses", 3, b"2"),
        ("requests", 9, b"new"),
    ]
    assert found == expected
    assert os.listdir(tmp_path) == ["foreign"]


def test_the_spool_is_bounded(tmp_path: Path) -> None:
    box = Outbox(Spool(tmp_path, 25))
    for number in range(4):
        box.put("losses", 1 + number, bytes(10))
        box.spill()
    assert box.dropped == 1 + 2
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) == 20
    assert _balances(box)


def test_a_spool_that_cannot_be_written(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1000)
    tmp_path.rmdir()
    box = Outbox(spool, room=25)
    for number in range(4):
        box.put("losses", 1 + number, bytes(10))
        box.spill()
    assert box.dropped == 1 + 2
    assert "No such file" in box.trouble
    assert _balances(box)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with clickhouse(tmp_path_factory.mktemp("clickhouse") / "data", "secret") as made:
        yield made


@pytest.fixture
def database(engine: Engine, request: pytest.FixtureRequest) -> Iterator[Address]:
    """An address with a database of the test's own, without tables."""
    name = request.node.name.partition("[")[0]
    yield Address(f"{engine.url}/{name}")
    engine.well()


WRITER = Credentials("writer", "secret")


def _fill(sink: ClickHouse, *parts: Part) -> None:
    sink.open(FACTS)
    for part in parts:
        sink.write(_batch(part))
        sink._flush()
    sink.account(Ledger((Entry.of_stage("request", 3, dropped=1),)))


def _batch(part: Part) -> Batch:
    return Batch([part], NOW * 10**9)


def _fill_more(sink: ClickHouse, part: Part) -> None:
    sink.write(_batch(part))
    sink._flush()


def _run(database: Address, sql: str) -> None:
    server = Server(database, WRITER)
    server.command(sql)
    server.close()


def _count(engine: Engine, database: Address, table: str) -> int:
    return int(engine.one(f"SELECT count() FROM {table}", database.database))


def test_every_value_arrives(engine: Engine, database: Address) -> None:
    list(initialise(database, WRITER))
    sink = ClickHouse(Server(database, WRITER), Outbox())
    fields = {"ts_ns": 5, "local_ip": "10.0.0.1", "local_port": 80, "bytes": 2**32 - 1, "seq": 7}
    made = {
        "request": records.requests(fields, {**fields, "request_ns": 2**64 - 1}),
        "connection": records.connections(fields),
        "loss": records.losses(fields),
        "snapshot": records.snapshots({**fields, "bytes_sent": 2**63}),
    }
    _fill(sink, *made.values())
    sink.close()
    for family, part in made.items():
        table = OF_FAMILY[family]
        names = [name for name in table.columns() if name not in ("host", "time")]
        chosen = ", ".join(f"`{name}`" for name in names)
        found = engine.rows(f"SELECT {chosen} FROM {table.name} ORDER BY ts_ns", database.database)
        expected = [[event[name] for name in names] for event in Batch([part])]
        assert [list(row) for row in found] == expected
        hosts = engine.rows(f"SELECT DISTINCT host, time FROM {table.name}", database.database)
        assert [(host, time.timestamp()) for host, time in hosts] == [("one", NOW)]
    assert _count(engine, database, "events") == 5
    kept = engine.rows("SELECT counter, count FROM ledger ORDER BY 1", database.database)
    assert kept == [("map_full", 1), ("received", 3), ("seen", 4), ("submitted", 3)]
    assert _count(engine, database, "hosts") == 2


SHIFTED = ("ts_ns", "start_ts_ns", "socket", "inode", "cgroup_id")


@pytest.mark.usefixtures("recent")
def test_rows_become_events_again(engine: Engine, database: Address) -> None:
    list(initialise(database, WRITER))
    server = Server(database, WRITER)
    sink = ClickHouse(server, Outbox())
    ends = {"local_ip": "10.0.0.1", "local_port": 5, "remote_ip": "fd00::1", "remote_port": 80}
    fields = {**ends, "ts_ns": 5, "socket": 7, "pid": 3, "comm": b"a\\b\n", "cgroup_id": 9}
    requests = records.requests(
        {**fields, "start_ts_ns": 2, "request_ns": 3, "request_state": 2, "server_comm": b"db"},
        {**ends, "request_ns": 2**64 - 1, "view": 3, "waiting_for": 1, "failed": 1},
    )
    named = np.ma.MaskedArray(np.array(["GET", ""], object), [False, True])
    requests = requests.derive(method=named)
    snapshots = records.snapshots({**fields, "inode": 11, "state": 1, "ca_state": 4}, {"state": 10})
    _fill(sink, requests, snapshots)
    sink.close()
    found = [tail.Requests(server).read(), tail.Snapshots(server).take()]
    for part, back in zip((requests, snapshots), found, strict=True):
        before, after = ([event.as_dict() for event in batch] for batch in (_batch(part), back))
        assert len(before) == len(after) == 2
        for one, other in zip(before, after, strict=True):
            assert {k: v for k, v in other.items() if k not in SHIFTED} == {
                k: v for k, v in one.items() if k not in SHIFTED
            }
    (request,) = found[0].parts
    assert request.derived["host"].tolist() == ["one", "one"]
    assert (request.rows["ts_ns"] - request.rows["start_ts_ns"]).tolist() == [0, 3]


@pytest.mark.usefixtures("recent")
def test_the_screens_show_all_hosts(engine: Engine, database: Address) -> None:
    list(initialise(database, WRITER))
    server = Server(database, WRITER)
    for host in ("one", "two"):
        sink = ClickHouse(server, Outbox())
        sink.open(replace(FACTS, host=host))
        seen = {"local_ip": "10.0.0.1", "local_port": 5, "pid": 3, "comm": b"db", "inode": 11}
        sink.write(_batch(records.snapshots({**seen, "state": 1})))
        sink.write(_batch(records.requests({"request_ns": 5, "start_ts_ns": 1})))
        sink.close()
    feed = Fleet(Server(database, WRITER), parse_recorded({"port": ("5",)}))
    model = Model(feed, "out")
    model.table = feed.table(None)
    told = json.loads("".join(json_line(model)))["connections"]
    assert sorted(each["host"] for each in told) == ["one", "two"]
    assert {each["inode"] % 2**32 for each in told} == {11}
    text = "\n".join(table_text(model))
    assert "db[3]@one" in text
    assert "db[3]@two" in text
    feed = Fleet(Server(database, WRITER), parse_recorded({}))
    model = Model(feed, "out")
    model.requests()
    model.add_events(feed.events())
    (route,) = json.loads("".join(requests_json(model)))["routes"]
    assert route["count"] == 2
    assert feed.table(None) is not None
    feed.close()


@pytest.fixture
def recent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at rows that have just come."""
    monkeypatch.setattr(tail, "BEHIND", 0)
    monkeypatch.setitem(globals(), "NOW", int(time.time()))


def _losses(first: int, count: int) -> Part:
    return records.losses(*({"ts_ns": number} for number in range(first, first + count)))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again soon."""
    monkeypatch.setattr(sinks, "_FIRST_WAIT", 0.05)
    monkeypatch.setattr(sinks, "_LONGEST_WAIT", 0.1)


def _await(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.usefixtures("quick")
def test_a_server_that_is_away(
    engine: Engine, database: Address, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    list(initialise(database, WRITER))
    box = Outbox(Spool(tmp_path, 1 << 20))
    sink = ClickHouse(Server(database, WRITER), box)
    _fill(sink, _losses(0, 10))
    _await(lambda: box.waiting == 0)
    engine.stop()
    for number in range(1, 4):
        _fill_more(sink, _losses(10 * number, 10))
    _await(lambda: len(os.listdir(tmp_path)) == 3)
    engine.start()
    _await(lambda: box.waiting == 0)
    sink.close()
    assert engine.rows("SELECT ts_ns FROM losses ORDER BY 1", database.database) == [
        (number,) for number in range(40)
    ]
    assert sink.dropped().counts["clickhouse_dropped"] == 0
    said = capfd.readouterr().err.splitlines()
    assert ["rows wait" in said[0], "again" in said[1], len(said)] == [True, True, 2]


@pytest.mark.usefixtures("quick")
def test_an_answer_that_is_lost_makes_no_row_twice(engine: Engine, database: Address) -> None:
    list(initialise(database, WRITER))
    box = Outbox()
    sink = ClickHouse(Server(database, WRITER), box)
    _fill(sink)
    _await(lambda: box.waiting == 0)
    engine.have("lost")
    _fill_more(sink, _losses(0, 10))
    _await(lambda: box.waiting == 0)
    sink.close()
    assert _count(engine, database, "losses") == 10
    sums = engine.one("SELECT sum(events) FROM losses_by_minute", database.database)
    assert sums == 10


@pytest.mark.usefixtures("quick")
def test_a_server_that_refuses(engine: Engine, database: Address) -> None:
    list(initialise(database, WRITER))
    box = Outbox()
    sink = ClickHouse(Server(database, WRITER), box)
    engine.have("code", "252")  # TOO_MANY_PARTS: it will take them later
    _fill(sink, _losses(0, 10))
    _await(lambda: sink._reached is False)
    engine.have("code", "117")  # INCORRECT_DATA: it never will
    _await(lambda: box.waiting == 0)
    engine.well()
    _fill_more(sink, _losses(10, 5))
    sink.close()
    account = sink.dropped()
    assert account.counts["clickhouse_dropped"] >= 10
    assert any("INCORRECT" in each or "117" in each for each in account.remarks)
    assert _count(engine, database, "losses") == 5


def test_a_slow_server_stops_nobody(
    engine: Engine, database: Address, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    list(initialise(database, WRITER))
    monkeypatch.setattr(sinks, "LAST_WORDS", 0.1)
    engine.have("slow", "2")
    sink = ClickHouse(Server(database, WRITER), Outbox(Spool(tmp_path, 1 << 20)))
    began = time.monotonic()
    _fill(sink, _losses(0, 10))
    sink.close()
    assert time.monotonic() - began < 2
    assert any("for the next start" in each for each in sink.dropped().remarks)
    engine.well()
    later = ClickHouse(Server(database, WRITER), Outbox(Spool(tmp_path, 1 << 20)))
    monkeypatch.setattr(sinks, "LAST_WORDS", 30)
    _fill(later)
    later.close()
    assert _count(engine, database, "losses") == 10


@pytest.mark.usefixtures("quick")
def test_tables_that_are_made_later(engine: Engine, database: Address) -> None:
    box = Outbox()
    sink = ClickHouse(Server(database, WRITER), box)
    _fill(sink, _losses(0, 10))
    _await(lambda: sink._reached is False)
    list(initialise(database, WRITER))
    _await(lambda: box.waiting == 0)
    sink.close()
    assert _count(engine, database, "losses") == 10


def test_an_older_schema(
    engine: Engine, database: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = schema.versions()
    with monkeypatch.context() as older:
        older.setattr(schema, "versions", lambda: {1: ours[1]})
        older.setattr(schema, "views", list)
        list(initialise(database, WRITER))
    sink = ClickHouse(Server(database, WRITER), Outbox())
    _fill(sink, records.connections({}), _losses(0, 10))
    sink.close()
    assert any("fleet init" in each for each in sink.dropped().remarks)
    assert _count(engine, database, "losses") == 10
    list(initialise(database, WRITER))
    assert _count(engine, database, "events") == 11
    versions = engine.rows("SELECT version FROM schema_versions ORDER BY 1", database.database)
    assert versions == [(version,) for version in ours]


def test_a_newer_schema_is_not_touched(engine: Engine, database: Address) -> None:
    list(initialise(database, WRITER))
    _run(database, "INSERT INTO schema_versions (version) VALUES (9999)")
    _run(database, "ALTER TABLE losses ADD COLUMN later Nullable(UInt8)")
    with pytest.raises(MachineError, match="version 9999"):
        list(initialise(database, WRITER))
    sink = ClickHouse(Server(database, WRITER), Outbox())
    _fill(sink, _losses(0, 10))
    sink.close()
    assert sink.dropped().remarks == ()
    assert _count(engine, database, "losses") == 10


def test_a_wrong_password(database: Address) -> None:
    with pytest.raises(ServerError, match="Authentication"):
        list(initialise(database, Credentials("writer", "guess")))
