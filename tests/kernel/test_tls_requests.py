"""Requests inside TLS: as many as nginx has logged, with the bytes that it has logged."""

import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.kernel.test_requests_http2 import GRPC_CLIENT, GRPC_SERVER, served_by_grpc
from tests.support.netns import Netns
from tests.support.nginx import nginx
from tests.support.server import serving
from tests.support.tls import certificate
from tests.support.tracer import PATIENCE, Event, tracing

pytestmark = pytest.mark.native  # the stage is the same everywhere, and so are the events' tests

ADDRESS = "https://127.0.0.1:8080"


def needs(program: str) -> None:
    if not shutil.which(program):
        pytest.skip(f"needs {program}")


def of_protocol(events: list[Event], protocol: str) -> list[Event]:
    return [event for event in events if event["protocol"] == protocol]


Row = tuple[str, str, int, int]  # request line, status, bytes of request and response


def logged(log: Path) -> Counter[Row]:
    """Return what nginx has logged."""
    rows = (line.split('"')[1:] for line in log.read_text().splitlines())
    return Counter((line, *_numbers(rest)) for line, rest in rows)


def _numbers(rest: str) -> tuple[str, int, int]:
    status, there, back, *_times = rest.split()
    return status, int(there), int(back)


def found(events: list[Event], version: str) -> Counter[Row]:
    return Counter(
        (
            f"{e['method']} {e['resource']} {version}",
            e["status"],
            e["request_bytes"],
            e["response_bytes"],
        )
        for e in events
    )


@pytest.mark.parametrize("view", ["both", "client", "server"])
def test_what_nginx_has_logged_of_ab(netns: Netns, tmp_path: Path, view: str) -> None:
    needs("ab")
    comm = {"both": (), "client": ("--comm", "ab"), "server": ("--comm", "nginx")}[view]
    with nginx(netns, tmp_path, tls=certificate(tmp_path)) as log:
        with tracing(tmp_path / "out", "--tls", "--netns", netns.path, *comm, view="requests") as t:
            netns.run("ab", "-q", "-k", "-n", "1500", "-c", "8", f"{ADDRESS}/hello")
            netns.run("ab", "-q", "-n", "300", "-c", "4", f"{ADDRESS}/broken")
        events = of_protocol(t.events, "http")
        assert found(events, "HTTP/1.0") == logged(log)
    assert len(events) == 1800
    assert {(event["request_state"], event["view"]) for event in events} == {("complete", view)}
    assert None not in {event["request_seq"] for event in events}


@pytest.mark.parametrize("view", ["both", "server"])
def test_what_nginx_has_logged_of_curl(netns: Netns, tmp_path: Path, view: str) -> None:
    needs("curl")
    comm = ("--comm", "nginx") if view == "server" else ()
    body = tmp_path / "body"
    body.write_bytes(os.urandom(300_000))
    files = certificate(tmp_path)
    with nginx(netns, tmp_path, tls=files) as log:
        with tracing(tmp_path / "out", "--tls", "--netns", netns.path, *comm, view="requests") as t:
            curl = ("curl", "-s", "--http1.1", "--cacert", files[0])
            netns.run(*curl, *[f"{ADDRESS}/hello"] * 5, f"{ADDRESS}/none")
            netns.run(*curl, "-T", str(body), f"{ADDRESS}/hello", "-H", "Expect:")
        events = of_protocol(t.events, "http")
        rows = logged(log)
    ((line, status, there, back),) = [row for row in rows if row[0].startswith("PUT")]
    rows[line, status, there, back] -= 1
    rows[line, status, there + 300_000, back] += 1  # nginx does not count what it throws away
    assert found(events, "HTTP/1.1") == +rows
    assert len(events) == 7
    assert {(event["request_state"], event["view"]) for event in events} == {("complete", view)}
    assert None not in {event["request_seq"] for event in events}


def test_what_nginx_has_logged_of_a_client_in_go(netns: Netns, tmp_path: Path) -> None:
    """Its first request may be missed: until then nobody knows the program."""
    needs("promtool")
    files = certificate(tmp_path)
    ask = ("env", f"SSL_CERT_FILE={files[0]}", "promtool", "query", "instant")
    with nginx(netns, tmp_path, tls=files) as log:
        with tracing(tmp_path / "out", "--tls", "--netns", netns.path, view="requests") as t:
            for where in ("none", *["hello"] * 5):  # it likes neither answer
                command = netns.command(*ask, f"{ADDRESS}/{where}", "up")
                subprocess.run(command, capture_output=True, timeout=PATIENCE)
        events = [e for e in of_protocol(t.events, "http") if e["resource"].startswith("/hello/")]
        rows = [(line, status, back) for line, status, _, back in logged(log).elements()]
    known = [row for row in rows if "/hello/" in row[0]]
    told = [(line, status, back) for line, status, _, back in found(events, "HTTP/1.1").elements()]
    assert Counter(told) == Counter(known)
    assert len(events) == 5
    assert {(e["comm"], e["request_state"], e["view"]) for e in events} == {
        ("promtool", "complete", "both")
    }
    assert None not in {event["request_seq"] for event in events}


def test_as_many_of_h2load_as_nginx_has_logged(netns: Netns, tmp_path: Path) -> None:
    needs("h2load")
    with nginx(netns, tmp_path, "http2", tls=certificate(tmp_path)) as log:
        chosen = ("--tls", "--netns", netns.path, "--payload", "16384")
        with tracing(tmp_path / "out", *chosen, view="requests") as t:
            paths = (f"{ADDRESS}/hello", f"{ADDRESS}/broken")
            netns.run("h2load", "-n", "2000", "-c", "2", "-m", "16", *paths)
        events = of_protocol(t.events, "http2")
        told = Counter((event["resource"], event["status"]) for event in events)
        assert Counter(row[1] for row in logged(log).elements()) == {"200": 1000, "503": 1000}
    assert told == {("/hello", "200"): 1000, ("/broken", "503"): 1000}
    assert {(event["request_state"], event["view"]) for event in events} == {("complete", "both")}


def test_as_many_calls_as_grpc_has_served(netns: Netns, tmp_path: Path) -> None:
    """The client's library has no symbols, though its process has OpenSSL, too; nginx' is read."""
    grpc = pytest.importorskip("grpc._cython.cygrpc", reason="needs grpcio")
    files, log = certificate(tmp_path), tmp_path / "log"
    with (
        serving(netns, log, sys.executable, "-c", GRPC_SERVER, "8081"),
        nginx(netns, tmp_path, "http2", tls=files),
        tracing(tmp_path / "out", "--tls", "--netns", netns.path, view="requests") as tracer,
    ):
        netns.run(sys.executable, "-c", GRPC_CLIENT, files[0])
    served = served_by_grpc(log)
    events = of_protocol(tracer.events, "grpc")
    for port in (8080, 8081):  # to nginx, and from there, without TLS
        there = [event for event in events if event["remote_port"] == port]
        assert Counter((event["method"], event["status"]) for event in there) == served, port
        assert {event["request_state"] for event in there} == {"complete"}
    said = "1 TLS handshake was of a process whose plaintext is not read"
    (line,) = [line for line in tracer.stderr if said in line]
    assert f"no symbols in {grpc.__file__}" in line


SLOW = """
import http.server, ssl, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        time.sleep(0.5)
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
server = http.server.HTTPServer(("127.0.0.1", 8080), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(*sys.argv[1:])
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""


def test_the_time_of_a_server(netns: Netns, tmp_path: Path) -> None:
    needs("curl")
    files = certificate(tmp_path)
    command = (sys.executable, "-c", SLOW, *files)
    with (
        serving(netns, tmp_path / "log", *command),
        tracing(tmp_path / "out", "--tls", "--netns", netns.path, view="requests") as tracer,
    ):
        netns.run("curl", "-s", "--cacert", files[0], *[f"{ADDRESS}/{n}" for n in range(3)])
    events = of_protocol(tracer.events, "http")
    assert [event["resource"] for event in events] == ["/0", "/1", "/2"]
    for event in events:
        assert event["view"] == "both"
        assert 500_000_000 <= event["server_ns"] <= event["request_ns"]
        assert event["request_ns"] - event["server_ns"] < 500_000_000  # on a busy machine, too
