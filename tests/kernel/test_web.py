"""`tcprism web`: the page shows what ab has asked for, while it runs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
import urllib.request
from http.cookiejar import CookieJar
from pathlib import Path

import pytest

from tests.support.netns import namespace
from tests.support.nginx import nginx
from tests.support.tracer import PATIENCE, TCPRISM

pytestmark = pytest.mark.native

COUNT = 300


def test_requests_are_there_while_they_are_made(tmp_path: Path) -> None:
    pytest.importorskip("uvicorn")
    if not shutil.which("ab"):
        pytest.skip("needs the package apache2-utils")
    with namespace() as netns, nginx(netns, tmp_path):
        command = [TCPRISM, "web", "--netns", netns.path]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert process.stdout
        try:
            url = process.stdout.readline().strip()
            opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
            opener.open(url, timeout=60).read()
            base = url.partition("?")[0]
            said = netns.run("ab", "-q", "-n", str(COUNT), "http://127.0.0.1:8080/hello")
            assert re.search(rf"Complete requests:\s+{COUNT}\n", said)
            deadline = time.monotonic() + PATIENCE
            found = {"total": 0}
            while found["total"] < COUNT and time.monotonic() < deadline:
                with opener.open(f"{base}api/requests?filter=ab+/hello+200", timeout=60) as answer:
                    found = json.load(answer)
            assert found["total"] == found["found"] == COUNT
            with opener.open(f"{base}api/connections?filter=ab+nginx", timeout=60) as answer:
                assert json.load(answer)["found"] == COUNT
            with opener.open(f"{base}api/summary", timeout=60) as answer:
                summary = json.load(answer)
            assert summary["live"]
            assert not summary["lost"]
        finally:
            process.terminate()
        assert process.wait(60) == 0
