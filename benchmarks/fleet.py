"""A fleet's ClickHouse: what rows cost on a host, on the way, and in the tables, by codec.

The engine is chdb, ClickHouse's own in one process, behind HTTP as the tests have it. Hosts are
simulated: each inserts five seconds' worth of requests, 1,000 a second.
"""

from __future__ import annotations

import re
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.rounds import Rounds
from benchmarks.table import Table, at_most
from tcprism.events import Batch, Part
from tcprism.events.arrow import to_record_batch
from tcprism.events.column import texts
from tcprism.events.kinds import NUMBERS, RECORDS
from tcprism.events.optional import pyarrow
from tcprism.events.part import Rows
from tcprism.events.requests import UNKNOWN_NS
from tcprism.fleet.address import Address, Credentials
from tcprism.fleet.queries import fleet_queries
from tcprism.fleet.rows import encoded, repeated
from tcprism.fleet.server import Server
from tcprism.fleet.setup import initialise
from tcprism.fleet.tables import OF_FAMILY, stored
from tests.support.clickhouse import ClickHouse, clickhouse

TOGETHER = 20
AN_INSERT = 5_000  # rows: five seconds of a host with 1,000 requests a second
PER_ROW = at_most(10, "{:.1f} µs")
ON_DISK = at_most(40, "{:.1f}")

CODECS = {
    "as it is": "",
    "LZ4": "LZ4",
    "ZSTD(1)": "ZSTD(1)",
    "ZSTD(3)": "ZSTD(3)",
    "Delta, LZ4": "Delta, LZ4",
    "T64, ZSTD(1)": "T64, ZSTD(1)",
}
_ROUTES = [f"/shop/items/?/{name}" for name in ("", "price", "stock", "photos", "reviews", "buy")]


def requests_of(host: int, second: int, count: int) -> Part:
    """Return the requests of one host, as a small service's clients make them."""
    random = np.random.default_rng(host * 100_003 + second)
    rows: Rows = np.zeros(count, RECORDS["request"])
    rows["kind"] = NUMBERS["request"]
    rows["ts_ns"] = np.sort(random.integers(0, 5 * 10**9, count)) + second * 10**9
    rows["family"], rows["netns"], rows["uid"] = 4, 4_026_531_840, 1_000
    connection = random.integers(0, 200, count)
    rows["socket"] = 1_000_000 * host + connection
    rows["pid"] = rows["tid"] = 2_000 + connection % 8
    rows["comm"], rows["cgroup_id"], rows["owner_source"] = b"worker", 5_123, 2
    for end, last in (("local", host % 250), ("remote", 1 + connection % 20)):
        rows[f"{end}_ip"][:, 10:12] = 255
        rows[f"{end}_ip"][:, 12:15] = (10, 1 + (end == "remote"), host // 250)
        rows[f"{end}_ip"][:, 15] = last
    rows["local_port"], rows["remote_port"] = 32_768 + connection, 8_080
    took = (random.lognormal(14, 1, count)).astype(np.uint64)
    rows["request_ns"], rows["start_ts_ns"] = took, rows["ts_ns"] - took
    for name in ("network_there", "server_queue", "network_back"):
        rows[f"{name}_ns"] = UNKNOWN_NS
    rows["send_queue_ns"] = 0
    rows["unread_ns"] = random.integers(2, 40, count) * 1_000
    rows["server_ns"] = took - np.minimum(took, rows["unread_ns"])
    rows["retransmission_wait_ns"] = 0
    rows["request_bytes"] = random.integers(300, 900, count)
    rows["response_bytes"] = random.integers(200, 20_000, count)
    rows["bytes"] = rows["request_bytes"] + rows["response_bytes"]
    rows["seq"], rows["response_seq"] = random.integers(1, 2**32, (2, count))
    rows["protocol"], rows["request_state"], rows["view"], rows["server_source"] = b"http", 1, 2, 2
    failed = random.random(count) < 0.01
    rows["failed"] = failed
    routes = texts(_ROUTES)[random.integers(0, len(_ROUTES), count)]
    derived = {
        "method": texts(["GET"] * count),
        "resource": routes,
        "status": np.where(failed, texts(["503"] * count), texts(["200"] * count)),
    }
    return Part(rows, derived={k: np.ma.MaskedArray(v, False) for k, v in derived.items()})


def insert_of(host: int, second: int) -> bytes:
    """Return what a host inserts."""
    offset = (int(time.time()) - 600) * 10**9
    names = [column.name for column in stored("request")]
    made = to_record_batch(Batch([requests_of(host, second, AN_INSERT)], offset), names)
    columns = [repeated(f"host-{host:04}", AN_INSERT), *made.columns]
    return encoded(pyarrow().RecordBatch.from_arrays(columns, ["host", *names]))


def run(rounds: Rounds) -> None:
    """Measure and print."""
    hosts = {Rounds.QUICK: 20, Rounds.NORMAL: 100, Rounds.FULL: 1_000}[rounds]
    with (
        tempfile.TemporaryDirectory(prefix="tcprism-") as folder,
        clickhouse(Path(folder) / "data") as engine,
    ):
        server = Server(Address(engine.url), Credentials())
        list(initialise(server.address, Credentials()))
        _inserts(server, engine, hosts)
        _codecs(server, engine)
        _queries(server, hosts * AN_INSERT)


def _inserts(server: Server, engine: ClickHouse, hosts: int) -> None:
    table = Table("Inserting requests, 5,000 at once", ("", "figure", "target", ""))
    insert_of(0, 0)  # what is imported and remembered at first is not measured
    spent = time.process_time()
    made = [insert_of(host, 0) for host in range(hosts)]
    rows = hosts * AN_INSERT
    table.add("a host's CPU a row", *PER_ROW.cells((time.process_time() - spent) / rows * 1e6))
    table.add("bytes a row sent", f"{sum(map(len, made)) / rows:.1f}", "", "")
    began = time.monotonic()
    for number, data in enumerate(made):
        server.insert("requests", data, f"token-{number}")
    took = time.monotonic() - began
    table.add(f"rows/s taken, {hosts} hosts", f"{rows / took:,.0f}", "", "")
    table.add("the same without the sums", f"{_alone(server, made, 1):,.0f}", "", "")
    table.add(f"and {TOGETHER} hosts' at once", f"{_alone(server, made, TOGETHER):,.0f}", "", "")
    for name in ("requests", "requests_by_minute"):
        server.command(f"OPTIMIZE TABLE {name} FINAL")
        count, size = _size(engine, name)
        figure = size / rows
        cells = ON_DISK.cells(figure) if name == "requests" else (f"{figure:.2f}", "", "")
        table.add(f"bytes a row on disk, {name}", *cells)
        if name == "requests":
            assert count == rows
    table.print()


def _alone(server: Server, made: list[bytes], at_once: int) -> float:
    """Return the rows a second that a table without sums takes, several inserts at once."""
    ipc = pyarrow().ipc
    batches = [ipc.open_stream(data).read_all().to_batches()[0] for data in made]
    gathered = [
        encoded(pyarrow().concat_batches(batches[first : first + at_once]))
        for first in range(0, len(batches), at_once)
    ]
    server.command("CREATE TABLE alone AS requests")
    began = time.monotonic()
    for number, data in enumerate(gathered):
        server.insert("alone", data, f"token-{number}")
    took = time.monotonic() - began
    server.command("DROP TABLE alone")
    return len(made) * AN_INSERT / took


def _size(engine: ClickHouse, table: str) -> tuple[int, int]:
    ((rows, size),) = engine.rows(
        "SELECT sum(rows), sum(bytes_on_disk) FROM system.parts"
        f" WHERE active AND database = 'tcprism' AND table = '{table}'"
    )
    return int(rows), int(size)


def _codecs(server: Server, engine: ClickHouse) -> None:
    """Put the same rows into tables with other codecs."""
    table = Table("Codecs of requests", ("codec", "bytes a row", "time to insert"))
    first = 0.0
    names = ", ".join(["host", *(column.name for column in stored("request"))])
    for number, (name, codec) in enumerate(CODECS.items()):
        made = f"requests_{number}"
        ddl = OF_FAMILY["request"].create().replace("NOT EXISTS requests", f"NOT EXISTS {made}")
        if codec:
            ddl = _with_codec(ddl, codec)
        server.command(ddl)
        began = time.monotonic()
        server.command(f"INSERT INTO {made} ({names}) SELECT {names} FROM requests")
        took = time.monotonic() - began
        first = first or took
        server.command(f"OPTIMIZE TABLE {made} FINAL")
        rows, size = _size(engine, made)
        table.add(name, f"{size / rows:.1f}", f"{took / first:.2f}")
        server.command(f"DROP TABLE {made}")
    table.print()


def _with_codec(ddl: str, codec: str) -> str:
    """Return a statement with another codec; of texts only what is for all types."""
    lines = []
    for line in ddl.splitlines():
        wide = "String" in line or ("DateTime64" in line and "T64" in codec)
        chosen = codec.rpartition(", ")[2] if wide else codec
        lines.append(re.sub(r"CODEC\((?:Delta\(8\), )?ZSTD\(1\)\)", f"CODEC({chosen})", line))
    return "\n".join(lines)


def _queries(server: Server, rows: int) -> None:
    table = Table(f"Queries over {rows:,} requests", ("query", "milliseconds", "rows"))
    asked = {
        **{name: query.sql for name, query in fleet_queries().items() if "request" in name},
        "one host, one minute": "SELECT count() FROM requests WHERE host = 'host-0007'",
        "p99 by route of all, from minutes": "SELECT resource,"
        " quantilesTDigestWeightedMerge(0.5, 0.9, 0.99)(weighted_quantiles_ns)"
        " FROM requests_by_minute GROUP BY 1",
        "p99 by route of all, from rows": "SELECT resource,"
        " quantilesTDigest(0.5, 0.9, 0.99)(request_ns) FROM requests GROUP BY 1",
    }
    for name, sql in asked.items():
        took = []
        for _ in range(3):
            began = time.monotonic()
            _, found = server.rows(sql)
            took.append(time.monotonic() - began)
        table.add(name, f"{min(took) * 1000:.0f}", str(len(found)))
    table.print()
