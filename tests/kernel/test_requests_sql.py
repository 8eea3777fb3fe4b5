"""Requests of databases: as many, with the results and the durations, as the servers' logs say."""

import re
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import pytest

from tests.support.netns import Netns
from tests.support.tls import certificate
from tests.support.tracer import Event, tracing

pytestmark = pytest.mark.native  # the stage is the same everywhere, and so are the events' tests

NOBODY = 65534  # these servers refuse to run as root
AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
BUSY = 0.25  # seconds that a busy machine may add
PATIENCE = 60

POSTGRESQL_SETTINGS = """\
listen_addresses = '127.0.0.1'
unix_socket_directories = '{folder}'
log_min_duration_statement = 0
log_line_prefix = '%p '
fsync = off
"""
TO_POSTGRESQL = ("-h", "127.0.0.1", "-U", "postgres")
LOGGED = re.compile(
    r"\d+ (?:LOG:  duration: ([\d.]+) ms  (?:statement|execute [^:]*): (.*)|ERROR:  (.*))"
)
TIMED = re.compile(r"(\d+) LOG:  duration: ([\d.]+) ms  statement: ")
CLIENTS, TRANSACTIONS = 4, 50
CLOSE_NS = 50_000  # how near the median is to what the server measured
CLOSE_WITH_TLS_NS = 4 * CLOSE_NS  # which is written and read outside of what it measures


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory of the unprivileged user."""
    made = Path(tempfile.mkdtemp(prefix="tcprism-"))
    shutil.chown(made, NOBODY, NOBODY)
    yield made
    shutil.rmtree(made)


@contextmanager
def server(netns: Netns, log: Path, ready: Callable[[], bool], *command: str) -> Iterator[None]:
    """Run a server as an unprivileged user until the body has ended."""
    with log.open("w") as output:
        process = subprocess.Popen(
            netns.command(*AS_NOBODY, *command), stdout=output, stderr=output, cwd="/"
        )
    try:
        deadline = time.monotonic() + PATIENCE
        while not ready():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait()


@contextmanager
def postgresql(netns: Netns, folder: Path, tls: bool = False) -> Iterator[Path]:
    """Run PostgreSQL; yield its log."""
    programs = [*Path("/usr/lib/postgresql").glob("*/bin"), Path("/usr/bin")]
    found = shutil.which("initdb", path=":".join(map(str, programs)))
    if not found or not shutil.which("pgbench"):
        pytest.skip("needs the package postgresql")
    data = folder / "data"
    arguments = ("-D", str(data), "-A", "trust", "-U", "postgres", "--no-sync")
    subprocess.run([*AS_NOBODY, found, *arguments], check=True, stdout=subprocess.DEVNULL, cwd="/")
    with (data / "postgresql.conf").open("a") as settings:
        settings.write(POSTGRESQL_SETTINGS.format(folder=folder))
        if tls:
            chain, key = certificate(folder)
            shutil.chown(key, NOBODY, NOBODY)
            settings.write(f"ssl = on\nssl_cert_file = '{chain}'\nssl_key_file = '{key}'\n")
    log = folder / "log"
    command = (str(Path(found).with_name("postgres")), "-D", str(data))
    with server(netns, log, lambda: "ready to accept" in log.read_text(), *command):
        yield log


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_as_many_statements_as_postgresql_has_logged(
    netns: Netns, tmp_path: Path, folder: Path, tls: bool
) -> None:
    chosen = ("--netns", netns.path, *(["--tls"] if tls else []))
    mode_of_tls = ("env", f"PGSSLMODE={'require' if tls else 'disable'}")
    script = tmp_path / "script"
    script.write_text("BEGIN;\nSELECT 7 + :client_id;\nEND;\n")
    with postgresql(netns, folder, tls) as log:
        with tracing(tmp_path / "out", *chosen, view="requests") as tracer:
            for mode in ("simple", "extended", "prepared"):
                netns.run(
                    *mode_of_tls, "pgbench", *TO_POSTGRESQL, "-n", "-f", str(script), "-M", mode,
                    "-c", str(CLIENTS), "-j", str(CLIENTS), "-t", str(TRANSACTIONS), "postgres",
                )  # fmt: skip
            netns.run(
                *mode_of_tls, "psql", *TO_POSTGRESQL, "-c", "select pg_sleep(0.1)", "postgres"
            )
            with pytest.raises(RuntimeError):
                netns.run(*mode_of_tls, "psql", *TO_POSTGRESQL, "-c", "select 1/0", "postgres")
        lines = log.read_text().splitlines()
    logged = [found for line in lines if (found := LOGGED.match(line))]
    timed = [(found[1], found[2]) for line in lines if (found := TIMED.match(line))]
    events = [
        event
        for event in tracer.events
        if event["request_state"] != "no response" and event["protocol"] == "postgresql"
    ]
    assert {(event["request_state"], event["view"]) for event in events} == {("complete", "both")}
    statements = [
        event for event in events if event["status"] not in ("N", "S", "AuthenticationOk", None)
    ]
    errors = [found[3] for found in logged if found[3]]
    assert len(logged) >= 3 * 3 * CLIENTS * TRANSACTIONS + 2
    assert len(statements) == len(logged)
    assert Counter(event["method"] for event in statements) == Counter(
        found[2].split()[0].rstrip(";").upper() if found[2] else "SELECT" for found in logged
    )
    assert [event["status"] for event in statements if event["failed"]] == ["22012"]
    assert errors == ["division by zero"]
    (slept,) = [event for event in statements if "pg_sleep" in event["resource"]]
    (took_ms,) = [float(found[1]) for found in logged if found[2] and "pg_sleep" in found[2]]
    assert slept["resource"] == "select pg_sleep(?)"
    assert took_ms * 1e6 <= slept["server_ns"] < took_ms * 1e6 + BUSY * 1e9
    assert median(off_ns(statements, timed)) < (CLOSE_WITH_TLS_NS if tls else CLOSE_NS)


def off_ns(events: list[Event], timed: list[tuple[str, str]]) -> list[int]:
    """Return how far each `server` is from what the server's process said, in its order."""
    spans = sorted(timed, key=lambda each: int(each[0]))
    pids = {int(pid) for pid, _ in spans}
    asked = [event for event in events if event["server_pid"] in pids]
    asked.sort(key=lambda event: (event["server_pid"], event["start_ts_ns"]))
    return [
        abs(event["server_ns"] - round(float(milliseconds) * 1e6))
        for event, (_, milliseconds) in zip(asked, spans, strict=True)
        if event["server_ns"] is not None
    ]


@contextmanager
def mariadb(netns: Netns, folder: Path) -> Iterator[Path]:
    """Run MariaDB; yield its general log."""
    if not shutil.which("mariadbd") or not shutil.which("mariadb-install-db"):
        pytest.skip("needs the packages mariadb-server-core and mariadb-client-core")
    data, log, general = folder / "data", folder / "log", folder / "general"
    subprocess.run(
        [*AS_NOBODY, "mariadb-install-db", "--no-defaults", f"--datadir={data}",
         "--auth-root-authentication-method=normal", "--skip-test-db"],
        check=True, stdout=subprocess.DEVNULL, cwd="/",
    )  # fmt: skip
    command = (
        "mariadbd", "--no-defaults", f"--datadir={data}", f"--socket={folder}/socket",
        "--bind-address=127.0.0.1", "--general-log=1", f"--general-log-file={general}",
        "--skip-log-error", "--skip-name-resolve", f"--pid-file={folder}/pid",
    )  # fmt: skip
    with server(netns, log, lambda: "ready for connections" in log.read_text(), *command):
        yield general


def test_as_many_statements_as_mariadb_has_logged(
    netns: Netns, tmp_path: Path, folder: Path
) -> None:
    statements = "create database shop; use shop; create table o (id int);\n"
    statements += "".join(f"insert into o values ({number});\n" for number in range(200))
    statements += "select * from missing;\nprepare p from 'select id from o where id > ?';\n"
    statements += "set @a = 3;\nexecute p using @a;\nselect sleep(0.1);\n"
    script = tmp_path / "script"
    script.write_text(statements)
    client = ("mariadb", "--no-defaults", "-h", "127.0.0.1", "-u", "root", "--force", "--skip-ssl")
    with (
        mariadb(netns, folder) as log,
        tracing(tmp_path / "out", "--netns", netns.path, view="requests") as tracer,
    ):
        began = time.monotonic_ns()
        netns.run("sh", "-c", f"{' '.join(client)} < {script}; true")
        took_ns = time.monotonic_ns() - began
    logged = Counter(re.findall(r"\t *\d+ (Query|Init DB)\t", log.read_text()))
    events = tracer.events
    assert {(event["request_state"], event["view"]) for event in events} == {("complete", "both")}
    assert {event["protocol"] for event in events} == {"mysql"}
    others = [event for event in events if event["method"] in ("CONNECT", "INIT_DB")]
    assert len(events) - len(others) == logged["Query"] >= 200
    assert [event["status"] for event in events if event["failed"]] == ["1146 (42S02)"]
    assert sum(event["resource"] == "insert into o values (?)" for event in events) == 200
    (slept,) = [event for event in events if event["resource"] == "select sleep(?)"]
    others_ns = sum(event["request_ns"] for event in events if event is not slept)
    assert 0.1e9 <= slept["server_ns"] < took_ns - others_ns  # one after the other
