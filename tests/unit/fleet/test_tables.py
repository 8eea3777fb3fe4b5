"""A fleet's tables: what is inserted, what is read back, other versions of the schema."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest

import generate_fleet
from tcprism.diagnosis.fleet_feed import Fleet
from tcprism.errors import MachineError
from tcprism.events import Batch
from tcprism.events.requests import STATES, VIEWS
from tcprism.filter_texts import parse_recorded
from tcprism.fleet import schema, tail
from tcprism.fleet.address import Address
from tcprism.fleet.outbox import Outbox
from tcprism.fleet.queries import fleet_queries
from tcprism.fleet.server import Server
from tcprism.fleet.setup import initialise
from tcprism.fleet.sink import ClickHouse
from tcprism.fleet.tables import OF_FAMILY
from tcprism.sinks.csv_lines import Csv
from tcprism.sinks.json_lines import JsonLines
from tcprism.tui.model import Model
from tcprism.tui.plain import json_line, table_text
from tcprism.tui.plain_requests import requests_json
from tests.support.clickhouse import ClickHouse as Engine
from tests.unit import records
from tests.unit.fleet.filling import FACTS, NOW, WRITER, awaited, count, fill, losses, run, stamped


def test_the_schema_has_all_columns() -> None:
    assert generate_fleet.render_next() == "", "run tools/generate_fleet.py"
    assert generate_fleet.OUTPUT.read_text() == generate_fleet.render(), "run `make docs`"


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
    fill(sink, *made.values())
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
    assert count(engine, database, "events") == 5
    kept = engine.rows("SELECT counter, count FROM ledger ORDER BY 1", database.database)
    assert kept == [("map_full", 1), ("received", 3), ("seen", 4), ("submitted", 3)]
    assert count(engine, database, "hosts") == 2


SHIFTED = ("ts_ns", "start_ts_ns", "socket", "inode", "cgroup_id")


@pytest.mark.usefixtures("recent")
def test_rows_become_events_again(engine: Engine, database: Address) -> None:
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
    fill(sink, requests, snapshots)
    sink.close()
    found = [tail.Requests(server).read(), tail.Snapshots(server).take()]
    for part, back in zip((requests, snapshots), found, strict=True):
        before, after = ([event.as_dict() for event in batch] for batch in (stamped(part), back))
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
    server = Server(database, WRITER)
    for host in ("one", "two"):
        sink = ClickHouse(server, Outbox())
        sink.open(replace(FACTS, host=host))
        seen = {"local_ip": "10.0.0.1", "local_port": 5, "pid": 3, "comm": b"db", "inode": 11}
        sink.write(stamped(records.snapshots({**seen, "state": 1})))
        sink.write(stamped(records.requests({"request_ns": 5, "start_ts_ns": 1})))
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


@pytest.mark.usefixtures("quick")
def test_tables_that_are_made_later(engine: Engine, database: Address) -> None:
    box = Outbox()
    sink = ClickHouse(Server(database, WRITER), box)
    fill(sink, losses(0, 10))
    awaited(lambda: sink._reached is False)
    list(initialise(database, WRITER))
    awaited(lambda: box.waiting == 0)
    sink.close()
    assert count(engine, database, "losses") == 10


def test_an_older_schema(
    engine: Engine, database: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = schema.versions()
    with monkeypatch.context() as older:
        older.setattr(schema, "versions", lambda: {1: ours[1]})
        older.setattr(schema, "views", list)
        list(initialise(database, WRITER))
    sink = ClickHouse(Server(database, WRITER), Outbox())
    fill(sink, records.connections({}), losses(0, 10))
    sink.close()
    assert any("fleet init" in each for each in sink.dropped().remarks)
    assert count(engine, database, "losses") == 10
    list(initialise(database, WRITER))
    assert count(engine, database, "events") == 11
    versions = engine.rows("SELECT version FROM schema_versions ORDER BY 1", database.database)
    assert versions == [(version,) for version in ours]


def test_a_newer_schema_is_not_touched(engine: Engine, database: Address) -> None:
    list(initialise(database, WRITER))
    run(database, "INSERT INTO schema_versions (version) VALUES (9999)")
    run(database, "ALTER TABLE losses ADD COLUMN later Nullable(UInt8)")
    with pytest.raises(MachineError, match="version 9999"):
        list(initialise(database, WRITER))
    sink = ClickHouse(Server(database, WRITER), Outbox())
    fill(sink, losses(0, 10))
    sink.close()
    assert sink.dropped().remarks == ()
    assert count(engine, database, "losses") == 10


def test_quantiles_count_a_sample_for_all(engine: Engine, database: Address) -> None:
    """Each of ten slow requests of a sample stands for 256, beside 99 fast ones."""
    list(initialise(database, WRITER))
    route = {"view": VIEWS.index("client"), "request_state": STATES.index("complete")}
    fast = [{**route, "request_ns": 1_000_000}] * 99
    slow = [{**route, "request_ns": 100_000_000, "sampling": 8}] * 10
    sink = ClickHouse(Server(database, WRITER), Outbox())
    fill(sink, records.requests(*fast, *slow))
    sink.close()
    merged = "quantilesTDigestWeightedMerge(0.5, 0.9, 0.99)(weighted_quantiles_ns)"
    minutes = f"SELECT sum(requests), {merged} FROM requests_by_minute"
    ((requests, (median, *_)),) = engine.rows(minutes, database.database)
    assert (requests, median) == (99 + 2560, pytest.approx(100_000_000, rel=0.01))
    by_route = fleet_queries()["requests-by-route"].sql
    (row,) = engine.rows(f"SELECT requests, p50_ms FROM ({by_route})", database.database)
    assert row == (99 + 2560, 100)


@pytest.mark.usefixtures("recent")
def test_requests_are_written_with_their_hosts(engine: Engine, database: Address) -> None:
    server = Server(database, WRITER)
    for host in ("one", "=two"):
        sink = ClickHouse(server, Outbox())
        sink.open(replace(FACTS, host=host))
        sink.write(stamped(records.requests({"request_ns": 5, "start_ts_ns": 1})))
        sink.close()
    batch = tail.Requests(server).read()
    told = io.BytesIO()
    sinks = [JsonLines(told, hosts=True), Csv(told, hosts=True)]
    for each in sinks:
        each.open(FACTS)
        each.write(batch)
    *lines, header, first, second = told.getvalue().decode().splitlines()
    assert sorted(json.loads(line)["host"] for line in lines) == ["=two", "one"]
    assert {json.loads(line)["request_ns"] for line in lines} == {5}
    assert header.split(",")[-1] == "host"
    assert sorted(line.split(",")[-1] for line in (first, second)) == ["'=two", "one"]
