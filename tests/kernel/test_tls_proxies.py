"""TLS through proxies: haproxy, which ends one session and begins another, and TLS inside TLS."""

from __future__ import annotations

import base64
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.netns import Netns
from tests.support.nginx import nginx
from tests.support.server import serving
from tests.support.tls import certificate
from tests.support.tracer import Event, tracing
from tests.unit.tls.test_libraries import mapping

from .test_tls_rustls import extension

pytestmark = pytest.mark.native

COUNT = 10
NGINX, PROXY = 8080, 8443
HAPROXY = """\
defaults
  mode http
  timeout client 30s
  timeout server 30s
  timeout connect 30s
listen proxy
  bind 127.0.0.1:{PROXY} ssl crt {pem}
  server behind 127.0.0.1:{NGINX} ssl verify none
"""


def needs(*programs: str) -> None:
    for program in programs:
        if not shutil.which(program):
            pytest.skip(f"needs {program}")


def requests(events: list[Event]) -> list[Event]:
    return [event for event in events if event["protocol"] == "http"]


def test_haproxy(netns: Netns, tmp_path: Path) -> None:
    needs("haproxy", "curl")
    files = certificate(tmp_path)
    pem, settings = tmp_path / "pem", tmp_path / "haproxy.cfg"
    pem.write_text("".join(Path(file).read_text() for file in files))
    settings.write_text(HAPROXY.format(PROXY=PROXY, NGINX=NGINX, pem=pem))
    with (
        nginx(netns, tmp_path, tls=files) as log,
        serving(netns, tmp_path / "haproxy.log", "haproxy", "-db", "-f", str(settings)),
        tracing(tmp_path / "out", "--tls", "--netns", netns.path, view="requests") as tracer,
    ):
        addresses = [f"https://127.0.0.1:{PROXY}/hello"] * COUNT
        netns.run("curl", "-s", "--retry-connrefused", "--retry", "9", "-k", *addresses)
    assert len(log.read_text().splitlines()) == COUNT
    found = Counter(
        (e["comm"], e["server_comm"], e["remote_port"], e["resource"], e["status"], e["view"])
        for e in requests(tracer.events)
    )
    assert found == {
        ("curl", "haproxy", PROXY, "/hello", "200", "both"): COUNT,
        ("haproxy", "nginx", NGINX, "/hello", "200", "both"): COUNT,
    }


@contextmanager
def connect_proxy(netns: Netns, files: tuple[str, str]) -> Iterator[None]:
    """Pass on what comes inside TLS, after CONNECT: to nginx, whatever is asked for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)

    def pass_on(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(20_000):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def serve() -> None:
        with suppress(OSError), context.wrap_socket(listener.accept()[0], server_side=True) as end:
            while not end.recv(4096).endswith(b"\r\n\r\n"):
                pass
            with netns.socket() as behind:
                behind.connect(("127.0.0.1", NGINX))
                end.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                back = threading.Thread(target=pass_on, args=(behind, end))
                back.start()
                pass_on(end, behind)
                back.join()

    with netns.socket() as listener:
        listener.bind(("127.0.0.1", PROXY))
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_tls_inside_tls(netns: Netns, tmp_path: Path) -> None:
    """The inner session has what the program wrote, on the socket of the outer one."""
    needs("curl")
    files = certificate(tmp_path)
    with (
        nginx(netns, tmp_path, tls=files) as log,
        connect_proxy(netns, files),
        tracing(tmp_path / "out", "--tls", "--netns", netns.path, "--payload", "2000") as tracer,
    ):
        proxy = ("--proxy", f"https://127.0.0.1:{PROXY}", "--proxy-insecure", "-k")
        netns.run("curl", "-s", *proxy, f"https://127.0.0.1:{NGINX}/hello")
    assert len(log.read_text().splitlines()) == 1
    events = [e for e in tracer.events if e["comm"] == "curl" and e["kind"].startswith("tls_")]
    assert {(e["remote_port"], e["socket_source"]) for e in events} <= {
        (PROXY, "call"),
        (PROXY, "session"),
    }
    asked = [base64.b64decode(e["payload"]) for e in events if e["kind"] == "tls_send"]
    answered = b"".join(base64.b64decode(e["payload"]) for e in events if e["kind"] == "tls_recv")
    assert [line.split(b" HTTP")[0] for line in asked] == [
        b"CONNECT 127.0.0.1:%d" % NGINX,
        b"GET /hello",
    ]
    assert answered.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert answered.endswith(b"\r\n\r\nhello")


# A process that passes TLS on, as it is.
PASS_ON = """
import socket, sys, threading
port, target = map(int, sys.argv[1:])

def pump(source, target):
    while data := source.recv(65536):
        target.sendall(data)
    target.shutdown(socket.SHUT_WR)

with socket.create_server(("127.0.0.1", port)) as listener:
    print("listening", flush=True)
    while True:
        ends = listener.accept()[0], socket.create_connection(("127.0.0.1", target))
        for both in (ends, ends[::-1]):
            threading.Thread(target=pump, args=both).start()
"""

# Clients: one that encrypts into memory, and rustls.
ASK = {
    "memory": """
import asyncio, ssl, sys

async def ask():
    context = ssl._create_unverified_context()
    reader, writer = await asyncio.open_connection("127.0.0.1", int(sys.argv[1]), ssl=context)
    writer.write(b"GET /hello HTTP/1.0\\r\\n\\r\\n")
    assert (await reader.read()).endswith(b"hello")

asyncio.run(ask())
""",
    "rustls": """
import os, sys
import obstore

store = obstore.store.HTTPStore.from_url(
    f"https://127.0.0.1:{sys.argv[1]}/", client_options={"allow_invalid_certificates": True}
)
assert bytes(obstore.get(store, "hello").bytes()) == b"hello"
os._exit(0)  # where Python ends before a thread of Rust that still waits for it, it aborts
""",
}


@pytest.mark.parametrize("client", ASK)
def test_records_that_a_proxy_passes_on_are_not_of_its_connection(
    netns: Netns, tmp_path: Path, client: str
) -> None:
    """The filter leaves out the client's own connection, which ends at the proxy."""
    if client == "rustls":
        pytest.importorskip("obstore")
    files = certificate(tmp_path)
    environment = os.environ | {"SSL_CERT_FILE": files[0]}
    command = netns.command(sys.executable, "-c", ASK[client], str(PROXY))
    proxy = (sys.executable, "-c", PASS_ON, str(PROXY), str(NGINX))
    with (
        nginx(netns, tmp_path, tls=files) as log,
        serving(netns, tmp_path / "proxy", *proxy, ready="listening"),
        mapping(*([extension("obstore")] if client == "rustls" else [])),
        tracing(tmp_path / "out", "--tls", "--netns", netns.path, "--port", str(NGINX)) as tracer,
    ):
        subprocess.run(command, env=environment, check=True)
    assert len(log.read_text().splitlines()) == 1
    plain = [event for event in tracer.events if event["kind"].startswith("tls_")]
    assert {(event["comm"], event["local_port"]) for event in plain} == {("nginx", NGINX)}
