"""A fleet's ClickHouse that is away, slow, or refuses."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tcprism.errors import ServerError
from tcprism.fleet import sink as sinks
from tcprism.fleet.address import Address, Credentials
from tcprism.fleet.outbox import Outbox, Spool
from tcprism.fleet.server import Server
from tcprism.fleet.setup import initialise
from tcprism.fleet.sink import ClickHouse
from tests.support.clickhouse import ClickHouse as Engine
from tests.unit.fleet.filling import WRITER, awaited, count, fill, fill_more, losses


@pytest.mark.usefixtures("quick")
def test_a_server_that_is_away(
    engine: Engine, database: Address, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    list(initialise(database, WRITER))
    box = Outbox(Spool(tmp_path, 1 << 20))
    sink = ClickHouse(Server(database, WRITER), box)
    fill(sink, losses(0, 10))
    awaited(lambda: box.waiting == 0)
    engine.stop()
    for number in range(1, 4):
        fill_more(sink, losses(10 * number, 10))
    awaited(lambda: len(os.listdir(tmp_path)) == 3)
    engine.start()
    awaited(lambda: box.waiting == 0)
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
    fill(sink)
    awaited(lambda: box.waiting == 0)
    engine.have("lost")
    fill_more(sink, losses(0, 10))
    awaited(lambda: box.waiting == 0)
    sink.close()
    assert count(engine, database, "losses") == 10
    sums = engine.one("SELECT sum(events) FROM losses_by_minute", database.database)
    assert sums == 10


@pytest.mark.usefixtures("quick")
def test_a_server_that_refuses(engine: Engine, database: Address) -> None:
    list(initialise(database, WRITER))
    box = Outbox()
    sink = ClickHouse(Server(database, WRITER), box)
    engine.have("code", "252")  # TOO_MANY_PARTS: it will take them later
    fill(sink, losses(0, 10))
    awaited(lambda: sink._reached is False)
    engine.have("code", "117")  # INCORRECT_DATA: it never will
    awaited(lambda: box.waiting == 0)
    engine.well()
    fill_more(sink, losses(10, 5))
    sink.close()
    account = sink.dropped()
    assert account.counts["clickhouse_dropped"] >= 10
    assert any("INCORRECT" in each or "117" in each for each in account.remarks)
    assert count(engine, database, "losses") == 5


def test_a_server_that_is_stuck_stops_nobody(
    engine: Engine, database: Address, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    list(initialise(database, WRITER))
    engine.have("stuck")
    sink = ClickHouse(Server(database, WRITER), Outbox(Spool(tmp_path, 1 << 20)))
    fill(sink, losses(0, 10))
    with monkeypatch.context() as hasty:
        hasty.setattr(sinks, "LAST_WORDS", 0.1)
        sink.close()
    assert any("for the next start" in each for each in sink.dropped().remarks)
    engine.well()
    later = ClickHouse(Server(database, WRITER), Outbox(Spool(tmp_path, 1 << 20)))
    fill(later)
    later.close()
    assert count(engine, database, "losses") == 10


def test_a_server_that_nobody_is() -> None:
    with socket.socket() as held:  # so that nobody else gets its port
        held.bind(("127.0.0.1", 0))
        address = Address(f"http://127.0.0.1:{held.getsockname()[1]}")
        with pytest.raises(ServerError) as caught:
            Server(address, WRITER).command("SELECT 1")
    assert str(caught.value) == f"{address}: Connection refused"


def test_a_wrong_password(database: Address) -> None:
    with pytest.raises(ServerError, match="Authentication"):
        list(initialise(database, Credentials("writer", "guess")))
