"""A ClickHouse for tests of a fleet."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tcprism.fleet import sink as sinks
from tcprism.fleet import tail
from tcprism.fleet.address import Address
from tcprism.fleet.setup import initialise
from tests.support.clickhouse import ClickHouse as Engine
from tests.support.clickhouse import clickhouse
from tests.support.netns import PATIENCE
from tests.unit.fleet import filling
from tests.unit.fleet.filling import WRITER


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


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the server take the rest, however busy the machine is."""
    monkeypatch.setattr(sinks, "LAST_WORDS", PATIENCE)


@pytest.fixture
def recent(database: Address, monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at rows that have just come, into tables that are there."""
    list(initialise(database, WRITER))
    monkeypatch.setattr(tail, "BEHIND", 0)
    monkeypatch.setattr(filling, "NOW", int(time.time()))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again soon."""
    monkeypatch.setattr(sinks, "_FIRST_WAIT", 0.05)
    monkeypatch.setattr(sinks, "_LONGEST_WAIT", 0.1)
