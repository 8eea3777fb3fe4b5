"""A Prometheus of our own, with nothing but what a test has it scrape."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

CONFIGURATION = """\
global: {{scrape_interval: 500ms, evaluation_interval: 500ms}}
rule_files: ["{rules}"]
scrape_configs:
  - job_name: tcprism
    static_configs: [{{targets: ["{target}"]}}]
"""


class Prometheus:
    """What Prometheus has scraped."""

    def __init__(self, url: str) -> None:
        self._url = url

    def ask(self, path: str, **parameters: Any) -> Any:
        """Return the data of an answer of its HTTP API; None while it does not answer."""
        query = urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(f"{self._url}/api/v1/{path}?{query}", timeout=60) as answer:
                return json.loads(answer.read())["data"]
        except (urllib.error.URLError, ConnectionError):
            return None

    def value(self, query: str) -> float:
        """Return the value of a query of one series, NaN while there is none."""
        data = self.ask("query", query=query)
        return float(data["result"][0]["value"][1]) if data and data["result"] else float("nan")


@contextmanager
def scraping(folder: Path, target: str, rules: Path) -> Iterator[Prometheus]:
    """Scrape a target ("127.0.0.1:9878") twice a second while the body runs."""
    if not shutil.which("prometheus"):
        pytest.skip("needs the package prometheus")
    (folder / "prometheus.yml").write_text(CONFIGURATION.format(rules=rules, target=target))
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address={address}",
                "--enable-feature=exemplar-storage",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        made = Prometheus(f"http://{address}")
        deadline = time.monotonic() + 60
        while made.ask("query", query="up") is None:
            assert time.monotonic() < deadline, (folder / "prometheus.log").read_text()
            assert process.poll() is None, (folder / "prometheus.log").read_text()
            time.sleep(0.1)
        yield made
    finally:
        process.terminate()
        process.wait()
