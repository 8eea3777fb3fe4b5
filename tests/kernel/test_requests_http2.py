"""Requests of HTTP/2, many at once on a connection: as many as nginx has logged."""

import shutil
from collections import Counter
from pathlib import Path

import pytest

from tests.support.netns import Netns
from tests.support.nginx import nginx
from tests.support.tracer import tracing

pytestmark = pytest.mark.native  # the stage is the same everywhere, and so are the events' tests

ADDRESS = "http://127.0.0.1:8080"


@pytest.mark.parametrize("view", ["both", "client"])
def test_as_many_requests_as_nginx_has_logged(netns: Netns, tmp_path: Path, view: str) -> None:
    if not shutil.which("h2load"):
        pytest.skip("needs the package nghttp2-client")
    chosen = ("--netns", netns.path, *(("--comm", "h2load") if view == "client" else ()))
    with nginx(netns, tmp_path, "http2") as log:
        # The responses that nginx writes at once are longer than what is captured by default.
        arguments = (*chosen, "--payload", "16384")
        with tracing(tmp_path / "out", *arguments, view="requests") as tracer:
            paths = (f"{ADDRESS}/hello", f"{ADDRESS}/broken", f"{ADDRESS}/none?token=secret")
            netns.run("h2load", "-n", "3000", "-c", "2", "-m", "32", *paths)
    logged = Counter(line.split('"')[2].split()[0] for line in log.read_text().splitlines())
    assert logged == {"200": 1000, "503": 1000, "404": 1000}
    events = tracer.events
    assert Counter((event["protocol"], event["resource"], event["status"]) for event in events) == {
        ("http2", "/hello", "200"): 1000,
        ("http2", "/broken", "503"): 1000,
        ("http2", "/none?", "404"): 1000,
    }
    assert {(event["request_state"], event["view"]) for event in events} == {("complete", view)}
    assert sum(event["failed"] for event in events) == 1000
