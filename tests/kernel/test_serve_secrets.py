"""No secret is in anything that `tcprism serve` or `tcprism web` keeps, shows or sends."""

from __future__ import annotations

import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.cookiejar import CookieJar
from pathlib import Path

import pytest

import tcprism
from tests.support.clickhouse import ClickHouse, clickhouse
from tests.support.netns import Netns
from tests.support.nginx import nginx
from tests.support.otlp import collecting
from tests.support.serving import Server, await_equal, serving
from tests.support.tracer import TCPRISM

pytestmark = pytest.mark.native

FAKE = "ZZfake0ZZfake1ZZfake2ZZfake3ZZfake4ZZfake5"
SECRETS = {
    "authorization": f"Bearer-{FAKE}A",
    "cookie": f"{FAKE}C",
    "query": f"{FAKE}Q",
    "form": f"{FAKE}F",
    "provider": f"AKIA{FAKE[:16].upper()}",
    "path": f"ghp_{FAKE[:36]}",
    "card": "4111111111111111",
}


def _ask(netns: Netns) -> None:
    netns.run(
        "curl", "-s", "-H", f"Authorization: {SECRETS['authorization']}", "-b",
        f"sid={SECRETS['cookie']}", "-H", f"X-Note: {SECRETS['provider']}", "-d",
        f"password={SECRETS['form']}&card={SECRETS['card']}",
        f"http://127.0.0.1:8080/hello/{SECRETS['path']}?api_key={SECRETS['query']}",
    )  # fmt: skip


def _found(*contents: bytes) -> list[str]:
    return [name for name, each in SECRETS.items() if any(each.encode() in c for c in contents)]


def _payloads(folder: Path, key: Path | None = None) -> bytes:
    return b"".join(event.payload or b"" for event in tcprism.open(folder, identity=key))


class _Page:
    """What a viewer of the page is told."""

    def __init__(self, url: str) -> None:
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
        self._base = url.partition("?")[0]
        self.told = [self._opener.open(url, timeout=60).read()]

    def ask(self, what: str) -> bytes:
        with self._opener.open(f"{self._base}api/{what}", timeout=60) as answer:
            said: bytes = answer.read()
        self.told.append(said)
        return said

    def ask_for_all(self) -> None:
        """Ask for everything, when there is a request and a closed connection."""
        await_equal(lambda: b"/hello/" in self.ask("requests"), True)
        await_equal(lambda: b"Authorization" in self.ask("request?n=0"), True)
        for what in ("connections", "connection?n=0", "heatmap", "overview", "map", "explain",
                     "vocabulary", "summary"):  # fmt: skip
            assert self.ask(what)


def _page(server: Server) -> _Page:
    assert server.process.stdout
    return _Page(server.process.stdout.readline().strip())


def _rows(engine: ClickHouse) -> bytes:
    """Return all that is in the tables; an aggregate's state is no text."""
    columns = engine.rows(
        "SELECT table, groupArray(concat('`', name, '`')) FROM system.columns"
        " WHERE database = 'tcprism' AND type NOT LIKE '%AggregateFunction%' GROUP BY table"
    )
    return repr([engine.rows(f"SELECT {', '.join(names)} FROM `{table}`")
                 for table, names in columns]).encode()  # fmt: skip


def test_the_page_and_the_tables_of_a_fleet(netns: Netns, tmp_path: Path) -> None:
    if not shutil.which("curl"):
        pytest.skip("needs curl")
    pytest.importorskip("uvicorn")
    ways = ("--requests", "--web", "127.0.0.1:0", "--netns", netns.path)
    with clickhouse(tmp_path / "data") as engine, nginx(netns, tmp_path):
        subprocess.run([TCPRISM, "fleet", "init", "--clickhouse", engine.url], check=True)
        with (
            serving(*ways, "--no-redact") as bare,
            serving(*ways, "--clickhouse", engine.url) as server,
            _live(netns) as live,
        ):
            pages = [_page(bare), _page(server), live]
            _ask(netns)
            for page in pages:
                page.ask_for_all()
            assert server.stop() == bare.stop() == 0
        rows = _rows(engine)
    assert _found(*pages[0].told) == [*SECRETS]
    assert b"/hello/" in rows
    assert not _found(rows, *pages[1].told, *pages[2].told)


@contextmanager
def _live(netns: Netns) -> Iterator[_Page]:
    """Run `tcprism web --redact` while the body runs."""
    command = [TCPRISM, "web", "--redact", "--netns", netns.path]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout
        try:
            yield _Page(process.stdout.readline().strip())
        finally:
            process.terminate()


def test_every_way_out_of_serve(netns: Netns, tmp_path: Path) -> None:
    if not shutil.which("curl"):
        pytest.skip("needs curl")
    place, plain, key = (tmp_path / name for name in ("recordings", "plain", "key"))
    identity = pytest.importorskip("pyrage").x25519.Identity.generate()
    key.write_text(str(identity))
    with (
        collecting() as collector,
        nginx(netns, tmp_path),
        serving("--requests", "--record", str(plain), "--no-redact", "--netns", netns.path) as bare,
        serving(
            *("--requests", "--record", str(place), "--encrypt-to", str(identity.to_public())),
            *("--otlp", collector.url, "--netns", netns.path),
        ) as server,
    ):
        _ask(netns)
        name = "http_server_request_duration_seconds_count"
        for each in (bare, server):
            each.await_sum(1, name)
        text = server.get().encode()
        exemplars = server.get(accept="application/openmetrics-text; version=1.0.0").encode()
        assert server.stop() == bare.stop() == 0
        said = "\n".join(server.said).encode()
    (folder,), (other,) = place.iterdir(), plain.iterdir()
    assert _found(_payloads(other)) == [*SECRETS]  # or they would be searched for in vain
    pushed = repr((collector.metrics, collector.resource)).encode()
    assert b"http.server.request.duration" in pushed
    files = [path.read_bytes() for path in folder.iterdir()]
    assert all(b"/hello/" not in content for content in files)  # and nothing else can be read
    assert b"/hello/" in _payloads(folder, key)
    page = tmp_path / "report.html"
    subprocess.run(
        [TCPRISM, "report", str(folder), "--output", str(page), "--identity", str(key)], check=True
    )
    assert b"/hello/" in page.read_bytes()
    assert not _found(
        text, exemplars, pushed, said, *files, _payloads(folder, key), page.read_bytes()
    )
