"""Hosts that insert into one ClickHouse, against ab's and the kernel's own counts."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.clickhouse import ClickHouse, clickhouse
from tests.support.netns import namespace
from tests.support.nginx import nginx
from tests.support.serving import serving
from tests.support.tracer import TCPRISM

pytestmark = pytest.mark.native

REQUESTS = 300


@dataclass
class Run:
    """A host that was traced under load over a lossy path, and what others count."""

    server: ClickHouse
    counters: dict[str, int]
    said: list[str]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouse]:
    if not shutil.which("ab"):
        pytest.skip("needs the package apache2-utils")
    with clickhouse(tmp_path_factory.mktemp("clickhouse") / "data") as server:
        subprocess.run([TCPRISM, "fleet", "init", "--clickhouse", server.url], check=True)
        yield server


@pytest.fixture(scope="module")
def run(engine: ClickHouse, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("fleet")
    upload = folder / "upload"
    upload.write_bytes(bytes(2000))
    with namespace() as netns, nginx(netns, folder):
        options = ("--requests", "--netns", netns.path, "--clickhouse", engine.url)
        with serving(*options, "--spool", str(folder / "spool"), "--user", "root") as server:
            before = netns.tcp_counters()
            netns.drop_every(9, 8080)
            url = "http://127.0.0.1:8080/hello"
            count = str(REQUESTS)
            netns.run("ab", "-q", "-n", count, "-c", "5", "-p", str(upload), url)
            netns.drop_nothing()
            netns.await_closed()
            after = netns.tcp_counters()
            assert server.stop() == 0
            counters = {name: count - before[name] for name, count in after.items()}
            return Run(engine, counters, server.said)


def test_rows_are_as_many_as_there_were(run: Run) -> None:
    rows = run.server.rows("SELECT status, count() FROM requests GROUP BY 1")
    assert rows == [("200", REQUESTS)]
    assert run.counters["RetransSegs"] > 0
    assert run.server.one("SELECT sum(segs) FROM retransmits") == run.counters["RetransSegs"]
    opened = "SELECT count() FROM connection_events WHERE error IS NULL AND kind = "
    assert run.server.one(opened + "'connect'") == run.counters["ActiveOpens"]
    assert run.server.one(opened + "'accept'") == run.counters["PassiveOpens"]
    assert run.server.one("SELECT count() FROM snapshots WHERE state = 'LISTEN'") > 0


def test_sums_of_minutes_are_those_of_rows(run: Run) -> None:
    assert run.server.one("SELECT sum(requests) FROM requests_by_minute") == REQUESTS
    sums = "SELECT sum(segs) FROM losses_by_minute WHERE kind = 'retransmit'"
    assert run.server.one(sums) == run.counters["RetransSegs"]
    bytes_sent = "SELECT sum(bytes_sent) FROM connections"
    in_minutes = "SELECT sum(bytes_sent) FROM connections_by_minute"
    assert run.server.one(in_minutes) == run.server.one(bytes_sent)


def test_the_ledger_is_there(run: Run) -> None:
    latest = "SELECT argMax(count, time) FROM ledger WHERE kind = 'request' AND counter = 'seen'"
    assert run.server.one(latest) == REQUESTS
    assert run.server.one("SELECT count() > 0 FROM hosts WHERE has(kinds, 'retransmit')")
    assert not any("did not reach" in line for line in run.said)


def test_a_server_that_is_not_there_stops_nothing(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    with serving("--clickhouse", "http://127.0.0.1:9", "--spool", str(spool)) as server:
        assert server.get("/healthz")
        assert server.stop() == 0
    assert any("for the next start" in line for line in server.said)
    assert any(spool.iterdir())
