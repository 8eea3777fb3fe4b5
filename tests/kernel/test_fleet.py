"""Two hosts that insert into one ClickHouse, against ab's, nft's and the kernel's own counts."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tcprism.fleet.outbox import Outbox, Spool
from tests.support.clickhouse import ClickHouse, clickhouse
from tests.support.netns import Netns, namespace
from tests.support.nginx import nginx
from tests.support.serving import serving
from tests.support.tracer import TCPRISM
from tests.support.unseen import unseen

pytestmark = pytest.mark.native

REQUESTS = 200  # of each phase
SERVER = "10.78.2.2"
SHIFT = 3  # seconds


@dataclass
class Run:
    """Two hosts that were traced under load over a lossy path, and what others count."""

    engine: ClickHouse
    counters: dict[str, dict[str, int]]  # by host
    dropped: dict[str, int]  # by nft
    said: list[str]
    unseen: dict[str, int]  # what no BPF program can tell of

    def one(self, sql: str) -> Any:
        """Ask for one value."""
        return self.engine.one(sql)


@dataclass
class Route:
    """Two hosts, and one between them that forwards."""

    client: Netns
    router: Netns
    server: Netns


@contextmanager
def routed() -> Iterator[Route]:
    with namespace() as client, namespace() as router, namespace() as server:
        for number, end in enumerate((client, server), 1):
            router.ip(
                f"link add to{number} type veth peer name veth0 netns {end.name}",
                f"address add 10.78.{number}.1/24 dev to{number}",
                f"link set to{number} up",
            )
            router.offload_off(f"to{number}")
            end.offload_off("veth0")
            end.ip(
                f"address add 10.78.{number}.2/24 dev veth0",
                "link set veth0 up",
                f"route add default via 10.78.{number}.1",
            )
        router.configure("net/ipv4/ip_forward", "1")
        yield Route(client, router, server)


@contextmanager
def dropping(netns: Netns, hook: str) -> Iterator[dict[str, int]]:
    """Drop one in nine of the segments with payload to the server while the body runs; count."""
    netns.run(
        "nft",
        "add table inet loss; add counter inet loss lost;"
        f"add chain inet loss some {{ type filter hook {hook} priority 0; }};"
        "add rule inet loss some tcp dport 8080 meta length > 200 numgen inc mod 9 == 8"
        " counter name lost drop",
    )
    counted: dict[str, int] = {}
    yield counted
    counted[hook] = netns.named_counter("lost")
    netns.drop_nothing()


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
    upload.write_bytes(bytes(4000))
    options = ("--requests", "--clickhouse", engine.url)
    with routed() as route, nginx(route.server, folder, address=SERVER):
        hosts = {"alpha": route.client, "beta": route.server}
        with (
            serving(*options, "--netns", route.client.path, host="alpha") as alpha,
            serving(*options, "--netns", route.server.path, host="beta") as beta,
        ):
            before = {name: netns.tcp_counters() for name, netns in hosts.items()}
            load = ["ab", "-q", "-n", str(REQUESTS), "-c", "4", "-p", str(upload)]
            with unseen("tcp_retransmit_skb", SERVER) as again:
                with dropping(route.router, "forward") as dropped:
                    route.client.run(*load, f"http://{SERVER}:8080/hello")
                with (
                    unseen("kfree_skb", "NETFILTER_DROP") as lost,
                    dropping(route.server, "prerouting") as more,
                ):
                    route.client.run(*load, f"http://{SERVER}:8080/none")
                route.client.await_closed()
                route.server.await_closed()
            counters = {
                name: {
                    each: count - before[name][each] for each, count in netns.tcp_counters().items()
                }
                for name, netns in hosts.items()
            }
            assert alpha.stop() == beta.stop() == 0
            hidden = {
                "alpha": sum(f"daddr={SERVER} " in line for line in again),
                "beta": sum(f"saddr={SERVER} " in line for line in again),
                "drops": len(lost),
            }
            return Run(engine, counters, dropped | more, alpha.said + beta.said, hidden)


def test_rows_are_as_many_as_there_were(run: Run) -> None:
    counted = run.engine.rows("SELECT host, view, status, count() FROM requests GROUP BY ALL")
    views = (("alpha", "client"), ("beta", "server"))
    assert sorted(counted) == [
        (*view, status, REQUESTS) for view in views for status in ("200", "404")
    ]
    again = dict(run.engine.rows("SELECT host, count() FROM retransmits GROUP BY 1"))
    recorded = run.one(
        "SELECT argMax(count, time) FROM ledger"
        " WHERE host = 'alpha' AND kind = 'retransmit' AND counter = 'submitted'"
    )
    assert again["alpha"] == recorded > 0
    for host in ("alpha", "beta"):  # beta, too, where a machine is so slow that probes are sent
        segments = run.one(f"SELECT sum(segs) FROM retransmits WHERE host = '{host}'")
        assert segments + run.unseen[host] == run.counters[host]["RetransSegs"]
    opened = "SELECT count() FROM connection_events WHERE error IS NULL AND kind = "
    assert run.one(opened + "'connect'") == run.counters["alpha"]["ActiveOpens"]
    assert run.one(opened + "'accept'") == run.counters["beta"]["PassiveOpens"]
    assert run.one("SELECT count() FROM snapshots WHERE state = 'LISTEN'") > 0


def test_sums_of_minutes_are_those_of_rows(run: Run) -> None:
    assert run.one("SELECT sum(requests) FROM requests_by_minute") == 4 * REQUESTS
    sums = run.one("SELECT sum(segs) FROM losses_by_minute WHERE kind = 'retransmit'")
    assert sums == run.one("SELECT sum(segs) FROM retransmits") > 0
    bytes_sent = "SELECT sum(bytes_sent) FROM connections"
    assert run.one("SELECT sum(bytes_sent) FROM connections_by_minute") == run.one(bytes_sent)


def test_the_ledger_is_there(run: Run) -> None:
    latest = (
        "SELECT host, argMax(count, time) FROM ledger WHERE kind = 'request' AND counter = 'seen'"
        " GROUP BY 1 ORDER BY 1"
    )
    assert run.engine.rows(latest) == [("alpha", 2 * REQUESTS), ("beta", 2 * REQUESTS)]
    assert not any("did not reach" in line for line in run.said)


def test_a_request_has_both_ends(run: Run) -> None:
    pairs = run.engine.rows(
        "SELECT host, server_host, server_comm, count(), uniqExact(local_port, request_seq)"
        " FROM request_ends GROUP BY 1, 2, 3"
    )
    assert pairs == [("alpha", "beta", "nginx", 2 * REQUESTS, 2 * REQUESTS)]
    assert run.one("SELECT countIf(server_ns IS NULL OR status IS NULL) FROM request_ends") == 0


def test_what_is_lost_is_what_nft_dropped(run: Run) -> None:
    lost = run.engine.rows(
        "SELECT sum(segments_missing), sum(dropped_here), sum(dropped_there), sum(lost_between),"
        " countIf(lost_between IS NULL) FROM lost_on_the_way WHERE host = 'alpha'"
    )
    forward, prerouting = run.dropped["forward"], run.dropped["prerouting"]
    assert min(forward, prerouting) > 0
    ((missing, here, there, between, unknown),) = lost
    assert (missing, here, unknown) == (forward + prerouting, 0, 0)
    told = "SELECT sum(segs) FROM losses WHERE reason = 'NETFILTER_DROP' AND bytes > 0 AND host = "
    assert run.one(f"{told}'beta'") + run.unseen["drops"] == prerouting
    assert there + run.unseen["drops"] == prerouting
    assert between == missing - there
    back = "SELECT sum(segments_missing) FROM connection_ends WHERE host = 'beta'"
    assert run.one(back) == 0


@pytest.mark.parametrize("shift", [0, 2**31])
def test_a_drop_before_the_socket_is_established_is_found_by_its_seq(run: Run, shift: int) -> None:
    """Another CPU may handle a segment before the ACK that ends the handshake."""
    database = f"early_{shift}"
    url = f"{run.engine.url}/{database}"
    subprocess.run([TCPRISM, "fleet", "init", "--clickhouse", url], check=True)
    for table, change in (
        ("hosts", "*"),
        ("ledger", "*"),
        ("losses", f"* REPLACE (toUInt32(seq + {shift}) AS seq)"),
        ("connection_events", "* REPLACE (0 AS elapsed_ns)"),  # as if established at the end
    ):
        run.engine.rows(f"INSERT INTO {database}.{table} SELECT {change} FROM tcprism.{table}")
    there = "SELECT sum(dropped_there) FROM lost_on_the_way WHERE host = 'alpha'"
    ((found,),) = run.engine.rows(there, database)
    assert found == (0 if shift else run.dropped["prerouting"] - run.unseen["drops"])


def test_what_tcp_throws_away_has_arrived(run: Run) -> None:
    """Its counter data_segs_in has it, so it is not among what is missing."""
    url = f"{run.engine.url}/again"
    subprocess.run([TCPRISM, "fleet", "init", "--clickhouse", url], check=True)
    for table in ("hosts", "ledger", "connection_events", "losses"):
        run.engine.rows(f"INSERT INTO again.{table} SELECT * FROM tcprism.{table}")
    run.engine.rows(
        "INSERT INTO again.losses SELECT * REPLACE ('TCP_OLD_DATA' AS reason)"
        " FROM tcprism.losses WHERE kind = 'drop'"
    )
    lost = "SELECT sum(dropped_there), sum(lost_between) FROM lost_on_the_way"
    assert run.engine.rows(lost, "again") == run.engine.rows(lost)


def test_clocks_are_compared(run: Run) -> None:
    """Both hosts have one clock here, so it is not ahead of itself, until rows are shifted."""
    found = "SELECT max(abs(offset_ns) - error_ns), max(error_ns), count() FROM {}.clocks"
    ((beyond, error, minutes),) = run.engine.rows(found.format("tcprism"))
    assert minutes > 0
    assert beyond <= 0
    assert error < 10**9
    url = f"{run.engine.url}/shifted"
    subprocess.run([TCPRISM, "fleet", "init", "--clickhouse", url], check=True)
    for table in ("requests", "connection_events"):
        run.engine.rows(
            f"INSERT INTO shifted.{table} SELECT * REPLACE (if(host = 'beta',"
            f" time + INTERVAL {SHIFT} SECOND, time) AS time) FROM tcprism.{table}"
        )
    ((ahead, error),) = run.engine.rows(
        "SELECT argMin(offset_ns, error_ns), min(error_ns) FROM clocks", "shifted"
    )
    assert abs(ahead - SHIFT * 10**9) <= error < 10**9


def _query(run: Run, *arguments: str) -> list[dict[str, Any]]:
    command = [TCPRISM, "query", "--clickhouse", run.engine.url, "--format", "json", *arguments]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [json.loads(line) for line in said.splitlines()]


def test_queries(run: Run) -> None:
    (lost,) = [row for row in _query(run, "lost-on-the-way") if row["host"] == "alpha"]
    assert lost["missing"] == sum(run.dropped.values())
    assert len(_query(run, "both-ends")) == 20
    assert [row["host"] for row in _query(run, "hosts")] == ["alpha", "beta"]
    (row,) = _query(run, "SELECT count() AS n FROM events WHERE kind = 'request'")
    assert row == {"n": 4 * REQUESTS}


def test_requests_of_all_hosts_are_shown(run: Run) -> None:
    """Those of the last minute: the same rows, but of ten seconds ago."""
    url = f"{run.engine.url}/recent"
    subprocess.run([TCPRISM, "fleet", "init", "--clickhouse", url], check=True)
    run.engine.rows(
        "INSERT INTO recent.requests SELECT * REPLACE (now64(9) - INTERVAL 10 SECOND AS time)"
        " FROM tcprism.requests"
    )
    command = [TCPRISM, "requests", "--clickhouse", url, "--by", "server"]
    result = subprocess.run(
        [*command, "--count", str(4 * REQUESTS), "--status", "404,200", "--port", "8080"],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    lines = result.stdout.splitlines()
    assert len(lines) == 1 + 4 * REQUESTS
    assert sum(" alpha " in line for line in lines) == 2 * REQUESTS
    assert sum(" beta " in line for line in lines) == 2 * REQUESTS


def test_all_built_in_queries_run(run: Run) -> None:
    listed = subprocess.run(
        [TCPRISM, "query", "--clickhouse", run.engine.url, "--list"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    queries = [block.partition("\n")[2] for block in listed.split("\n\n")]
    assert len(queries) > 8
    for sql in queries:
        run.engine.rows(sql)


def test_a_query_changes_nothing(run: Run) -> None:
    command = [TCPRISM, "query", "--clickhouse", run.engine.url, "DROP TABLE losses"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1
    assert "readonly" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert run.one("SELECT count() > 0 FROM losses")


def test_a_disk_that_is_full(tmp_path: Path) -> None:
    """What does not fit is dropped, counted and said; what fits waits, whole."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path], check=True)
    try:
        box = Outbox(Spool(tmp_path, 1 << 30), room=30_000)
        for _ in range(10):
            box.put("losses", 7, bytes(20_000))
        assert box.trouble == "No space left on device"
        assert box.dropped > 0
        assert all(path.stat().st_size == 20_000 for path in tmp_path.iterdir())
        while insert := box.next(0):
            assert insert.data == bytes(20_000)
            box.done(insert, inserted=True)
        assert box.put_rows == 70 == box.inserted + box.dropped
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_a_server_that_is_not_there_stops_nothing(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    with serving("--clickhouse", "http://127.0.0.1:9", "--spool", str(spool)) as server:
        assert server.get("/healthz")
        assert server.stop() == 0
    assert any("for the next start" in line for line in server.said)
    assert any(spool.iterdir())
