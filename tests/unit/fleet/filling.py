"""A fleet's sink, filled by hand."""

from __future__ import annotations

import time
from collections.abc import Callable

from tcprism.events import Batch, Part
from tcprism.events.facts import Facts
from tcprism.events.ledger import Entry, Ledger
from tcprism.fleet.address import Address, Credentials
from tcprism.fleet.server import Server
from tcprism.fleet.sink import ClickHouse
from tests.support.clickhouse import ClickHouse as Engine
from tests.support.netns import PATIENCE
from tests.unit import records

NOW = int(time.time())  # older rows are deleted at once
FACTS = Facts(kinds=("retransmit",), host="one", started="2026-01-01T00:00:00+00:00")

WRITER = Credentials("writer", "secret")


def fill(sink: ClickHouse, *parts: Part) -> None:
    sink.open(FACTS)
    for part in parts:
        sink.write(stamped(part))
        sink._flush()
    sink.account(Ledger((Entry.of_stage("request", 3, dropped=1),)))


def stamped(part: Part) -> Batch:
    return Batch([part], NOW * 10**9)


def fill_more(sink: ClickHouse, part: Part) -> None:
    sink.write(stamped(part))
    sink._flush()


def run(database: Address, sql: str) -> None:
    server = Server(database, WRITER)
    server.command(sql)
    server.close()


def count(engine: Engine, database: Address, table: str) -> int:
    return int(engine.one(f"SELECT count() FROM {table}", database.database))


def losses(first: int, count: int) -> Part:
    return records.losses(*({"ts_ns": number} for number in range(first, first + count)))


def awaited(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
