"""`tcprism explain` with requests: a client, a server that asks two others, known think times.

The truth: how long each server waits before it answers, and what it never answers.
"""

import json
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.netns import Netns
from tests.support.tls import certificate
from tests.support.tracer import PATIENCE, TCPRISM

pytestmark = pytest.mark.native

Files = tuple[()] | tuple[str, str]
Play = Callable[[], None]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
THINK = 1.2  # seconds that the slow server takes
ROUNDED = 0.01  # seconds, of the time in a text
ANSWERED = 2  # requests, before it does not answer any more
PROXY = """
import socket, ssl, sys
asks = answers = lambda end: end
if sys.argv[1:]:
    asks = ssl._create_unverified_context().wrap_socket
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*sys.argv[1:])
    answers = lambda end: context.wrap_socket(end, server_side=True)
slow, fast = (asks(socket.create_connection(("127.0.0.1", port))) for port in (7062, 7063))
with socket.create_server(("127.0.0.1", 7061)) as listener:
    print("ready", flush=True)
    client = answers(listener.accept()[0])
while client.recv(4096):
    for server, path in ((slow, "stock"), (fast, "price")):
        server.sendall(f"GET /{path} HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n".encode())
        server.recv(4096)
    client.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok")
"""


def secured(end: socket.socket, files: Files, *, server: bool) -> socket.socket:
    """Return an end of a connection inside TLS, if there is a certificate."""
    if not files:
        return end
    if not server:
        return ssl._create_unverified_context().wrap_socket(end)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    return context.wrap_socket(end, server_side=True)


def serve(
    listener: socket.socket, files: Files, think: float, asked: threading.Event, end: Any
) -> None:
    """Answer requests on one connection; the slow server ANSWERED of them."""
    with suppress(OSError), secured(listener.accept()[0], files, server=True) as server:
        for _ in range(ANSWERED if think else 1000):
            if not server.recv(4096):
                return
            end.wait(think)
            server.sendall(OK)
        server.recv(4096)
        asked.set()
        end.wait()


def ask(connected: socket.socket, files: Files, waits: list[float]) -> None:
    """Ask, and note how many seconds each answer took."""
    with suppress(OSError), secured(connected.dup(), files, server=False) as client:
        for number in range(1000):
            began = time.monotonic()
            client.sendall(b"GET /cart/%d?token=secret HTTP/1.1\r\nHost: x\r\n\r\n" % number)
            client.recv(100)
            waits.append(time.monotonic() - began)


@contextmanager
def proxied(netns: Netns, files: Files, waits: list[float]) -> Iterator[tuple[int, Play]]:
    """Have a proxy ask a slow server and a fast one.

    Give its pid, and what lets a client ask until the slow server answers no more.
    """
    asked, end = threading.Event(), threading.Event()
    listeners = {7062: netns.socket(), 7063: netns.socket()}
    threads = []
    for port, listener in listeners.items():
        listener.bind(("127.0.0.1", port))
        listener.listen()
        think = THINK if port == 7062 else 0
        threads.append(threading.Thread(target=serve, args=(listener, files, think, asked, end)))
    command, client = netns.command(sys.executable, "-c", PROXY, *files), netns.socket()
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        for thread in threads:
            thread.start()
        assert process.stdout
        process.stdout.readline()
        client.connect(("127.0.0.1", 7061))
        threads.append(threading.Thread(target=ask, args=(client, files, waits)))

        def play() -> None:
            threads[-1].start()
            assert asked.wait(PATIENCE)

        try:
            yield process.pid, play
        finally:
            end.set()
            with suppress(OSError):  # the proxy has ended: the slow server has hung up on it
                client.shutdown(socket.SHUT_RDWR)
            process.kill()
            for thread in threads:
                thread.join()
            for one in (*listeners.values(), client):
                one.close()


def run(*arguments: str, meanwhile: Play | None = None) -> list[Any]:
    """Return the objects that `explain` prints; `meanwhile` is called once it watches."""
    command = [TCPRISM, "explain", *arguments, "--format", "json"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stderr
        if meanwhile:
            assert process.stderr.readline().startswith("watching")
            meanwhile()
        shown, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    return [json.loads(line) for line in shown.splitlines()]


def proof(found: list[Any], rule: str, **which: int) -> str:
    """Return what proves a rule about one end."""
    (one,) = [e for e in found if all(e.get(name) == value for name, value in which.items())]
    (verdict,) = [v for v in one["verdicts"] if v["rule"] == rule]
    return str(verdict["proof"])


def check(found: list[Any], pid: int, took: list[float]) -> None:
    """Check what is told of the client, which waited so long, the proxy and the slow server."""
    (process,) = {e["comm"] for e in found if e.get("pid") == pid}
    late, waits = proof(found, "slow-peer", remote_port=7062), r"[\d.]+ s"
    assert re.match(rf"http GET /stock has waited {waits} for its response, acknowledged", late)
    slow = rf"{ANSWERED} answers, .* the slowest after ([\d.]+) s \(http GET /stock by .*\)"
    (slowest,) = re.findall(slow, late)
    assert THINK <= float(slowest) <= max(took[:ANSWERED]) + ROUNDED
    here = proof(found, "slow-here", local_port=7061)
    assert re.match(rf"read http GET /cart/2\? {waits} ago and has not answered", here)
    assert re.search(rf"meanwhile it waited {waits} for 127.0.0.1:7062 \(http GET /stock\)", here)
    assert "secret" not in json.dumps(found)
    assert not any(
        verdict["accuses"]
        for one in found
        if 7063 in (one.get("local_port"), one.get("remote_port"))
        for verdict in one["verdicts"]
    )
    (asked,) = [e for e in found if e.get("process") == f"{process}[{pid}]"]
    slow_one, fast_one = asked["servers"]
    assert [slow_one[name] for name in ("server", "requests", "pending")] == [
        "127.0.0.1:7062",
        ANSWERED,
        ["http GET /stock"],
    ]
    assert ANSWERED * THINK <= slow_one["took_ns"] / 1e9 < sum(took[:ANSWERED])
    assert [fast_one[name] for name in ("server", "requests")] == ["127.0.0.1:7063", ANSWERED]


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "inside TLS"])
def test_explain_names_the_slow_request_and_the_slow_server(
    netns: Netns, tmp_path: Path, tls: bool
) -> None:
    """Live, and from a recording."""
    files = certificate(tmp_path) if tls else ()
    plaintext = ("--tls",) if tls else ()
    recording = tmp_path / "run.tcpr"
    where = ("--netns", netns.path, "--port", "7061,7062,7063")
    record = [
        TCPRISM,
        "record",
        *where,
        *plaintext,
        "--payload",
        "4096",
        "--output",
        str(recording),
    ]
    waits: list[float] = []
    with (
        proxied(netns, files, waits) as (pid, play),
        subprocess.Popen(record, stderr=subprocess.PIPE) as keep,
    ):
        assert keep.stderr
        while not keep.stderr.readline().startswith(b"tracing"):
            pass
        try:
            live = run(*where, *plaintext, "--duration", "6", meanwhile=play)
            keep.send_signal(signal.SIGINT)
            keep.communicate(timeout=PATIENCE)
        finally:
            keep.kill()
    check(live, pid, waits)
    check(run(str(recording)), pid, waits)
