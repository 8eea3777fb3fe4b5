"""Requests inside TLS of programs with other libraries, short lives, and violent ends."""

import os
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
TIMES = int(os.environ.get("TCPRISM_TIMES", "1"))  # 5 for a thousand lives, 17 for 204 ends
SHORT_LIVES = 200 * TIMES
TURNS = 3 * TIMES

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


# With `filtered` it has a filter that knows no system call of uprobes, and kills for those.
TALK = """
import ctypes, socket, ssl, struct, sys, threading
if sys.argv.pop(1) == "filtered":
    load, equal, result = 0x20, 0x15, 6  # of BPF; SECCOMP_RET_KILL_PROCESS and _ALLOW
    steps = ((load, 0, 0, 0), (equal, 2, 0, 335), (equal, 1, 0, 336), (result, 0, 0, 0x7fff0000),
             (result, 0, 0, 0x80000000))
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    program = struct.pack("@HP", len(steps), ctypes.addressof(code))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    assert not prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    assert not prctl(22, 2, program, 0, 0)  # PR_SET_SECCOMP
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

    def talking(how: str = "free") -> subprocess.Popen[bytes]:
        command = netns.command(sys.executable, "-c", TALK, how, *files)
        made = subprocess.Popen(command, stdout=subprocess.PIPE)
        pong(made)
        return made

    survivors = [talking(), talking("filtered")]
    assert "Seccomp:\t2" in Path(f"/proc/{survivors[1].pid}/status").read_text()
    for turn in range(TURNS):
        tracer = Tracer(tmp_path / f"out{turn}", "--tls", "--netns", netns.path)
        tracer.await_attached()
        links = bpf_of(tracer.process.pid)["link"]
        assert links
        for _ in range(3):
            victim = talking()
            victim.kill()
            victim.communicate()
            for survivor in survivors:
                pong(survivor)
        tracer.stop(signal.SIGKILL)
        for survivor in survivors:
            for _ in range(100):
                pong(survivor)
            assert survivor.poll() is None
        assert not links & _links_of_all()
    for survivor in survivors:
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
