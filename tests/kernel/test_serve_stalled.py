"""`tcprism serve` beside outputs that hang, and short of memory: it goes on reading."""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

import tcprism
from tcprism.events.kinds import NUMBERS
from tests.support.netns import Netns, namespace
from tests.support.nginx import nginx
from tests.support.serving import Server, serving
from tests.support.tracer import PATIENCE, parse_ledger

pytestmark = pytest.mark.native

REQUESTS = 2_000
SCRAPERS = 7  # of eight that are answered at once
_URL = "http://127.0.0.1:8080/hello"
COUNTED = "http_client_request_duration_seconds_count"


@contextmanager
def hanging() -> Iterator[int]:
    """Give a port that takes connections and never says a word."""
    with closing(socket.create_server(("127.0.0.1", 0), backlog=100)) as listener:
        yield listener.getsockname()[1]


@contextmanager
def full_disk(folder: Path) -> Iterator[Path]:
    """Give a folder on a disk with room for little."""
    folder.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=48k,mode=0700", "tmpfs", folder], check=True
    )
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def deaf_scraper(url: str) -> socket.socket:
    """Ask for the metrics and do not read them."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    made.settimeout(PATIENCE)
    made.connect((urlsplit(url).hostname, urlsplit(url).port))
    made.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
    return made


@dataclass
class Stalled:
    """What serve said while all its outputs hung, and what ab counted."""

    told: float
    lost: float
    stalls: float
    counted: int
    seconds_to_end: float
    said: list[str]

    def remark(self, pattern: str) -> int:
        """Return the number in a line that it printed, which must be there."""
        found = next(filter(None, (re.fullmatch(pattern, line) for line in self.said)), None)
        assert found, [line for line in self.said if "events" in line or "rows" in line]
        return int(found[1].replace(",", ""))


@pytest.fixture(scope="module")
def stalled(tmp_path_factory: pytest.TempPathFactory) -> Stalled:
    if not shutil.which("ab"):
        pytest.skip("needs the package apache2-utils")
    pytest.importorskip("clickhouse_connect")
    folder = tmp_path_factory.mktemp("stalled")
    with ExitStack() as stack:
        enter = stack.enter_context
        netns = enter(namespace())
        enter(nginx(netns, folder))
        options = [
            *("--requests", "--netns", netns.path),
            *("--otlp", f"http://127.0.0.1:{enter(hanging())}"),
            *("--clickhouse", f"http://127.0.0.1:{enter(hanging())}"),
            *("--record", str(enter(full_disk(folder / "disk"))), "--keep", "64M"),
        ]
        server = enter(serving(*options))
        for _ in range(SCRAPERS):
            enter(closing(deaf_scraper(server.url)))
        said = netns.run("ab", "-k", "-q", "-n", str(REQUESTS), "-c", "10", _URL)
        found = re.search(r"Complete requests:\s+(\d+)", said)
        assert found
        server.await_sum(int(found[1]), COUNTED, process_executable_name="ab")
        told = server.sum(COUNTED, process_executable_name="ab")
        lost = server.sum("tcprism_events_lost_total")
        stalls = server.sum("tcprism_ledger_total", tcprism_ledger_count="stalls")
        assert server.get("/healthz") == "ok\n"
        began = time.monotonic()
        assert server.stop() == 0
        return Stalled(
            told, lost, stalls, int(found[1]), time.monotonic() - began, list(server.said)
        )


def test_events_are_read_while_all_outputs_hang(stalled: Stalled) -> None:
    assert (stalled.told, stalled.lost, stalled.stalls) == (stalled.counted, 0, 0)
    assert stalled.counted == REQUESTS


def test_what_was_not_recorded_is_counted(stalled: Stalled) -> None:
    assert stalled.remark(r"([\d,]+) events were not recorded: No space left on device") > 0


def test_what_did_not_reach_the_servers_is_counted(stalled: Stalled) -> None:
    assert any("/v1/metrics takes no metrics" in line for line in stalled.said)
    assert stalled.remark(r"([\d,]+) rows did not reach ClickHouse.*") > REQUESTS


def test_the_end_does_not_wait_for_them_for_long(stalled: Stalled) -> None:
    """OTLP has ten seconds, and so has ClickHouse; a busy machine some more."""
    assert stalled.seconds_to_end < 60


CONNECTIONS = 18_000  # each takes some 9 kB until it is forgotten
SAID = b"GET /" + b"x" * 3500  # and never the rest


def _keep_all(listener: socket.socket, done: int) -> None:
    kept = []
    for _ in range(CONNECTIONS):
        kept.append(listener.accept()[0])
        kept[-1].settimeout(None)
        kept[-1].recv(len(SAID), socket.MSG_WAITALL)
    os.write(done, b".")
    signal.pause()


@contextmanager
def _reader(netns: Netns) -> Iterator[int]:
    """Have a process take all connections, read what is said first, and keep them.

    Give where it says that it has done so.
    """
    done, tell = os.pipe()
    with closing(netns.socket()) as listener:
        listener.bind(("127.0.0.1", 6000))
        listener.listen(1000)
        child = os.fork()
        if not child:
            try:
                listener.settimeout(None)  # `serve` may take long to start
                _keep_all(listener, tell)
            finally:
                os._exit(1)  # and never be a second pytest
    os.close(tell)
    try:
        yield done
    finally:
        os.close(done)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@pytest.fixture
def many_files() -> Iterator[None]:
    """Let this process have a socket for each connection."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@contextmanager
def _watched(server: Server) -> Iterator[list[int]]:
    """Look at a server's memory all the time; give what it was, in bytes."""
    over = threading.Event()
    seen = [_own_memory(server)]

    def look() -> None:
        while not over.wait(0.01):
            seen.append(_own_memory(server))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


@pytest.mark.usefixtures("many_files")
def test_memory_stays_below_its_bound(netns: Netns, tmp_path: Path) -> None:
    """Requests that never end are kept, as many as there is room for; the rest is counted."""
    place = tmp_path / "recordings"
    options = ("--requests", "--ring-size", "16M", "--netns", netns.path)
    with pytest.raises(AssertionError, match="the rings take") as raised:
        Server(*options, "--max-memory", "10M")
    rings, _, least = (int(text) << 20 for text in re.findall(r"(\d+) ?M", str(raised.value)))
    bound = ("--max-memory", str(least))
    with (
        _reader(netns) as done,
        serving(*options, *bound, "--record", str(place)) as server,
        ExitStack() as open_ones,
    ):
        with _watched(server) as memory:
            for _ in range(CONNECTIONS):
                client = open_ones.enter_context(closing(netns.socket()))
                client.connect(("127.0.0.1", 6000))
                client.sendall(SAID)
            assert os.read(done, 1) == b"."
            _await_snapshot(server)
        assert max(memory) <= least - rings
        assert len(memory) > 100
        assert _ledger(server, "connections_evicted") > 0
        assert server.sum("tcprism_memory_limit_bytes") == least
        assert server.get("/healthz") == "ok\n"
        assert server.stop() == 0
        assert any("connections were forgotten" in line for line in server.said), server.said
    _nothing_is_lost_silently(server.said, place)


def _await_snapshot(server: Server) -> None:
    """Wait until all connections are in a snapshot, which is the largest batch."""
    deadline = time.monotonic() + PATIENCE
    while server.sum("tcprism_connections", tcp_state="ESTABLISHED") < 2 * CONNECTIONS:
        assert time.monotonic() < deadline
        time.sleep(0.5)


def _nothing_is_lost_silently(said: list[str], place: Path) -> None:
    ledger = parse_ledger(said)
    for kind in ("send", "recv"):
        counts = ledger[kind]
        lost = counts["ring_full"] + counts["ring_busy"] + counts["map_full"] + counts["missed"]
        assert counts["received"] + lost == CONNECTIONS
    (folder,) = place.iterdir()
    batches = tcprism.open(folder).batches()
    recorded = np.sum([batch.totals[0] for batch in batches], axis=0)
    missing = sum(counts["received"] - recorded[NUMBERS[kind]] for kind, counts in ledger.items())
    found = re.findall(r"([\d,]+) events were not written", "\n".join(said))
    assert missing <= sum(int(count.replace(",", "")) for count in found)


def _own_memory(server: Server) -> int:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    own = re.search(r"RssAnon:\s+(\d+) kB", status)
    assert own
    return int(own[1]) << 10


def _ledger(server: Server, name: str) -> float:
    return server.sum("tcprism_ledger_total", tcprism_ledger_count=name)
