"""Requests inside TLS of programs with other libraries, short lives, and violent ends."""

import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.support.netns import Netns
from tests.support.nginx import nginx
from tests.support.server import serving
from tests.support.tls import certificate
from tests.support.tracer import Tracer, bpf_of, tracing

pytestmark = pytest.mark.native

ADDRESS = "https://127.0.0.1:8080"
SHORT_LIVES = 300

NODE = """
const https = require("https"), fs = require("fs"), [, cert, key] = process.argv;
const options = {cert: fs.readFileSync(cert), key: fs.readFileSync(key)};
const server = https.createServer(options, (asked, given) => given.end("hello " + asked.url));
const agent = new https.Agent({keepAlive: true, maxSockets: 3, ca: options.cert});
server.listen(0, "127.0.0.1", () => {
  let left = 30;
  const done = () => { if (!--left) { agent.destroy(); server.close(); } };
  for (let n = 0; n < 30; n++)
    https.get({host: "127.0.0.1", port: server.address().port, path: "/" + n, agent},
              (given) => given.resume().on("end", done));
});
"""


def needs(*programs: str) -> None:
    for program in programs:
        if not shutil.which(program):
            pytest.skip(f"needs {program}")


def test_short_lives_with_openssl_and_gnutls(netns: Netns, tmp_path: Path) -> None:
    needs("curl", "wget")
    files = certificate(tmp_path)
    with nginx(netns, tmp_path, tls=files) as log:
        with tracing(tmp_path / "out", "--tls", "--netns", netns.path, view="requests") as tracer:
            curl = f"curl -s --cacert {files[0]} {ADDRESS}/hello -o /dev/null"
            netns.run("sh", "-c", f"for n in $(seq {SHORT_LIVES}); do {curl} || exit; done")
            netns.run("wget", "-qO-", f"--ca-certificate={files[0]}", *[f"{ADDRESS}/hello"] * 3)
        assert len(log.read_text().splitlines()) == SHORT_LIVES + 3
    events = [event for event in tracer.events if event["protocol"] == "http"]
    assert Counter(event["comm"] for event in events) == {"curl": SHORT_LIVES, "wget": 3}
    assert {(event["status"], event["request_state"], event["view"]) for event in events} == {
        ("200", "complete", "both")
    }


def test_node_which_encrypts_into_memory(netns: Netns, tmp_path: Path) -> None:
    needs("node")
    files = certificate(tmp_path)
    # One that runs has the library found before there is anything to miss.
    with subprocess.Popen(["node", "-i"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        assert first.stdout
        assert first.stdout.read(1)
        with tracing(tmp_path / "out", "--tls", "--netns", netns.path, view="requests") as tracer:
            netns.run("node", "-e", NODE, *files)
        first.communicate()
    events = [event for event in tracer.events if event["protocol"] == "http"]
    assert Counter(event["resource"] for event in events) == {f"/{n}": 1 for n in range(30)}
    assert {(event["status"], event["request_state"]) for event in events} == {("200", "complete")}


def test_redis(netns: Netns, tmp_path: Path) -> None:
    needs("redis-server", "redis-benchmark")
    cert, key = certificate(tmp_path)
    server = ("redis-server", "--port", "0", "--tls-port", "6379", "--bind", "127.0.0.1",
              "--save", "", "--tls-cert-file", cert, "--tls-key-file", key,
              "--tls-auth-clients", "no", "--dir", str(tmp_path))  # fmt: skip
    with serving(netns, tmp_path / "log", *server):
        with tracing(tmp_path / "out", "--tls", "--netns", netns.path, view="requests") as tracer:
            load = ("-n", "500", "-c", "5", "-P", "4", "-q", "-t", "set,get")
            netns.run("redis-benchmark", "--tls", "--insecure", *load)
        said = netns.run("redis-cli", "--tls", "--insecure", "INFO", "commandstats")
    asked = {
        line.split(":")[0].removeprefix("cmdstat_"): int(line.split("calls=")[1].split(",")[0])
        for line in said.splitlines()
        if "calls=" in line
    }
    events = [event for event in tracer.events if event["protocol"] == "redis"]
    found = Counter(event["method"].lower().replace(" ", "|") for event in events)
    assert found == asked
    assert (found["set"], found["get"]) == (500, 500)


TALK = """
import socket, ssl, sys, threading
server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl._create_unverified_context()
server.load_cert_chain(*sys.argv[1:])
listener = socket.create_server(("127.0.0.1", 0))
def serve():
    with server.wrap_socket(listener.accept()[0], server_side=True) as end:
        while data := end.recv(100):
            end.send(data)
threading.Thread(target=serve, daemon=True).start()
with client.wrap_socket(socket.create_connection(listener.getsockname())) as end:
    while True:
        end.send(b"ping")
        end.recv(100)
        print("pong", flush=True)
"""


def test_violent_ends(netns: Netns, tmp_path: Path) -> None:
    """Of traced programs, which leave tracing as it is, and of tcprism, which they survive."""
    files = certificate(tmp_path)

    def talking() -> subprocess.Popen[bytes]:
        made = subprocess.Popen(
            netns.command(sys.executable, "-c", TALK, *files), stdout=subprocess.PIPE
        )
        pong(made)
        return made

    survivor = talking()
    for turn in range(3):
        tracer = Tracer(tmp_path / f"out{turn}", "--tls", "--netns", netns.path)
        tracer.await_attached()
        links = bpf_of(tracer.process.pid)["link"]
        assert links
        for _ in range(3):
            victim = talking()
            victim.kill()
            victim.communicate()
            pong(survivor)
        tracer.stop(signal.SIGKILL)
        for _ in range(100):
            pong(survivor)
        assert survivor.poll() is None
        assert not links & _links_of_all()
    survivor.kill()
    survivor.communicate()


def pong(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout
    assert process.stdout.readline() == b"pong\n"


def _links_of_all() -> set[int]:
    found: set[int] = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            found |= bpf_of(int(process.name))["link"]
        except OSError:
            continue
    return found
