"""Plaintext of rustls: which bytes, of which socket and where in its stream, ciphertext must prove.

The other end is OpenSSL. Both ends say what they have written and read, tcpdump has the records.
"""

from __future__ import annotations

import base64
import json
import socket
import ssl
import subprocess
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.capture import capturing
from tests.support.netns import Netns, namespace
from tests.support.programs import built_by_cargo
from tests.support.server import serving
from tests.support.tls import DATA, Records, certificate, records_on_the_wire
from tests.support.tls_seen import OVERHEAD, RECORD, records_of
from tests.support.tracer import PATIENCE, Event, parse_ledger, tracing
from tests.unit.tls.test_doctor import report

pytestmark = pytest.mark.native

PACKAGE = Path(__file__).parents[1] / "support" / "programs" / "rustls_peer"
HTTPS = 8443

# Shorter than what a record is known by, as long, as one record, and more than a socket takes.
SIZES = (1, 14, 15, 16, 100, 5_000, RECORD, RECORD + 1, 200_000, 3)
NONCE, TYPE = 8, 1  # in records of AES-GCM before TLS 1.3, and since then in all

Key = tuple[int, int, str]  # local port, remote port, kind
Told = dict[Key, bytes]


def told_in(lines: Iterable[str]) -> Told:
    """Return what a program says it has moved."""
    told: Told = defaultdict(bytes)
    for line in lines:
        if line.startswith("["):
            local, remote, kind, data = json.loads(line)
            told[local, remote, kind] += bytes.fromhex(data)
    return told


@dataclass
class Echo:
    """A server with OpenSSL that sends back what it reads; `read` is what, by the client's port."""

    context: ssl.SSLContext
    listener: socket.socket
    read: dict[int, bytes] = field(default_factory=lambda: defaultdict(bytes))

    @property
    def address(self) -> str:
        return "{}:{}".format(*self.listener.getsockname())

    def run(self) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=self.listener.accept()).start()

    def _serve(self, plain: socket.socket, client: tuple[str, int]) -> None:
        with self.context.wrap_socket(plain, server_side=True) as server:
            while data := server.recv(RECORD):
                self.read[client[1]] += data
                server.sendall(data)


@contextmanager
def echoing(netns: Netns, files: tuple[str, str], ciphers: str | None = None) -> Iterator[Echo]:
    """Run a server; with `ciphers` by TLS 1.2."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    if ciphers:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(ciphers)
    with netns.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        server = Echo(context, listener)
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            yield server
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.fixture(scope="module")
def program() -> Path:
    return built_by_cargo(PACKAGE)


def talk(netns: Netns, program: Path, way: str, server: Echo, connections: int) -> Told:
    """Have clients send all sizes; return what they say."""
    sizes = (str(size) for size in SIZES if way == "echo" or size <= RECORD + 1)
    command = netns.command(str(program), way, server.address, str(connections), *sizes)
    done = subprocess.run(
        command, input="\n" * len(SIZES), check=True, stdout=subprocess.PIPE, text=True
    )
    told = told_in(done.stdout.splitlines())
    assert len(told) == 2 * connections
    for (local, _, _), data in told.items():
        assert data == server.read[local]
    return told


@dataclass
class Seen:
    """What was seen: by the programs, by tcpdump, by tcprism."""

    told: dict[str, Told]
    wire: dict[tuple[int, int], Records]
    events: dict[tuple[int, int], list[Event]]
    stderr: list[str]

    def of(self, way: str) -> Iterator[tuple[Event, bytes]]:
        """Return each message of a way, with the plaintext that was there; there is no other."""
        for (local, remote, kind), data in self.told[way].items():
            events = [each for each in self.events[local, remote] if each["kind"] == kind]
            assert sum(event["bytes"] for event in events) == len(data)
            at = 0
            for event in events:
                assert event["stream_offset"] == at
                yield event, data[at : at + event["bytes"]]
                at += event["bytes"]


def files_in_der(files: tuple[str, str], folder: Path) -> tuple[str, str]:
    found = str(folder / "certificate.der"), str(folder / "key.der")
    for words in (
        ("x509", "-in", files[0], "-outform", "DER", "-out", found[0]),
        ("pkcs8", "-topk8", "-nocrypt", "-in", files[1], "-outform", "DER", "-out", found[1]),
    ):
        subprocess.run(["openssl", *words], check=True, capture_output=True)
    return found


def curl(netns: Netns, log: Path) -> Told:
    """Have curl make two requests; return what the server in Rust says that it has moved."""
    url = f"https://127.0.0.1:{HTTPS}/"
    command = netns.command("curl", "-s", "-k", "--http1.1", f"{url}one", f"{url}two")
    body = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    told = told_in(log.read_text().splitlines())
    (sent,) = (data for (*_, kind), data in told.items() if kind == "tls_send")
    (read,) = (data for (*_, kind), data in told.items() if kind == "tls_recv")
    head, rest = sent[: sent.index(b"\r\n\r\n") + 4], len(sent) // 2
    assert body == sent[len(head) : rest] + sent[rest + len(head) :]
    assert read.startswith(b"GET /one HTTP/1.1\r\n")
    assert b"GET /two" in read
    return told


@pytest.fixture(scope="module")
def seen(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """What is seen of one way after the other, by one tracer: it takes seconds to start."""
    folder = tmp_path_factory.mktemp("rustls")
    files, log = certificate(folder), folder / "server.log"
    with ExitStack() as stack:
        netns = stack.enter_context(namespace())
        command = str(program), "serve", str(HTTPS), *files_in_der(files, folder)
        stack.enter_context(serving(netns, log, *command))
        modern = stack.enter_context(echoing(netns, files))
        servers = {
            "TLS 1.2": stack.enter_context(echoing(netns, files, "ECDHE+AESGCM")),
            "ChaCha20": stack.enter_context(echoing(netns, files, "ECDHE+CHACHA20")),
        }
        options = ("--tls", "--netns", netns.path, "--payload", str(RECORD))
        with (
            capturing(netns, "lo", folder / "pcap", "127.0.0.1"),
            tracing(folder / "out", *options) as tracer,
        ):
            told = {"curl": curl(netns, log)}
            told |= {
                way: talk(netns, program, "echo", server, 1) for way, server in servers.items()
            }
            told["TLS 1.3"] = talk(netns, program, "echo", modern, 3)
            told["crossed"] = talk(netns, program, "crossed", modern, 4)
    events = defaultdict(list)
    for event in tracer.events:
        if event["kind"].startswith("tls_"):
            events[event["local_port"], event["remote_port"]].append(event)
    return Seen(told, records_on_the_wire(folder / "pcap"), events, tracer.stderr)


OVERHEADS = {
    "curl": OVERHEAD,
    "TLS 1.2": OVERHEAD - TYPE + NONCE,
    "ChaCha20": OVERHEAD - TYPE,
    "TLS 1.3": OVERHEAD,
    "crossed": OVERHEAD,
}


@pytest.mark.parametrize("way", OVERHEADS)
def test_each_message_is_one_record(seen: Seen, way: str) -> None:
    for event, data in seen.of(way):
        assert base64.b64decode(event["payload"]) == data
        assert records_of(event, seen.wire) == [DATA]
        assert event["encrypted_bytes"] == event["bytes"] + OVERHEADS[way]
        assert (event["socket_source"], event["missed_bytes"]) == ("ciphertext", 0)
        assert event["comm"] == PACKAGE.name
        assert event["session"] == event["socket"]


def test_nothing_is_said_to_be_missing(seen: Seen) -> None:
    said = "\n".join(seen.stderr)
    assert "not read" not in said  # a handshake of a process that is not covered
    assert "missing" not in said
    assert "more than" not in said  # plaintext, than its records can carry
    assert "begun before" not in said
    ledger = parse_ledger(seen.stderr)
    assert not ledger["tls_send"]["map_full"] + ledger["tls_recv"]["map_full"]


def test_a_session_that_had_begun_before(program: Path, netns: Netns, tmp_path: Path) -> None:
    """What it moved before is not known, what it moves now is."""
    with (
        echoing(netns, certificate(tmp_path)) as server,
        capturing(netns, "lo", tmp_path / "pcap", "127.0.0.1"),
        subprocess.Popen(
            netns.command(str(program), "echo", server.address, "1", "50", "70"),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        ) as process,
    ):  # fmt: skip
        assert process.stdin
        assert process.stdout
        before = [process.stdout.readline()]
        process.stdin.write("\n")
        before += [process.stdout.readline() for _ in range(2)]
        options = ("--tls", "--netns", netns.path, "--payload", "100", "--comm", PACKAGE.name)
        with tracing(tmp_path / "out", *options) as tracer:
            process.stdin.write("\n")
            after = process.stdout.readlines()
            assert process.wait(PATIENCE) == 0
    told = told_in(after)
    events = [event for event in tracer.events if event["kind"].startswith("tls_")]
    shown = {
        (event["local_port"], event["remote_port"], event["kind"]):
            base64.b64decode(event["payload"])
        for event in events
    }  # fmt: skip
    assert shown == told
    wire = records_on_the_wire(tmp_path / "pcap")
    assert [records_of(event, wire) for event in events] == [[DATA]] * 2
    assert [event["missed_bytes"] for event in events] == [None, None]


def changed(program: Path, folder: Path, *changes: tuple[bytes, bytes]) -> Path:
    """Return a copy of a program in which bytes are replaced by as many others, all at once."""
    data = program.read_bytes()
    for number, (old, _) in enumerate(changes):
        assert old in data
        data = data.replace(old, b"\0\1%d".ljust(len(old), b"\2") % number)
    for number, (old, new) in enumerate(changes):
        assert len(old) == len(new)
        data = data.replace(b"\0\1%d".ljust(len(old), b"\2") % number, new)
    copy = folder / program.name
    copy.write_bytes(data)
    copy.chmod(0o755)
    return copy


def test_functions_that_are_others(program: Path, netns: Netns, tmp_path: Path) -> None:
    """If what is read there is no message of a socket, nothing is shown, and nobody is harmed."""
    encrypt, decrypt = b"MessageEncrypter$GT$7encrypt17", b"MessageDecrypter$GT$7decrypt17"
    copy = changed(program, tmp_path, (encrypt, decrypt), (decrypt, encrypt))
    options = ("--tls", "--netns", netns.path, "--payload", "100", "--comm", PACKAGE.name)
    with (
        echoing(netns, certificate(tmp_path)) as server,
        subprocess.Popen(
            netns.command(str(copy), "echo", server.address, "1", "9", "99"),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        ) as process,
    ):  # fmt: skip
        assert process.stdout
        assert process.stdout.readline() == "connected\n"
        with tracing(tmp_path / "out", *options) as tracer:
            out, _ = process.communicate("\n\n", timeout=PATIENCE)
            assert process.returncode == 0
    assert len(told_in(out.splitlines())) == 2
    assert str(copy) in "\n".join(tracer.stderr)
    assert [event for event in tracer.events if event["kind"].startswith("tls_")] == []
    assert tracer.ledger["tls_send"]["map_full"]
    assert tracer.ledger["tls_recv"]["map_full"]


@contextmanager
def waiting(program: Path, netns: Netns, files: tuple[str, str]) -> Iterator[int]:
    """Run the program; return its pid."""
    with subprocess.Popen(netns.command(str(program), "serve", "0", *files)) as process:
        try:
            netns.await_state("0A")
            yield process.pid
        finally:
            process.terminate()


def test_what_doctor_says(program: Path, netns: Netns, tmp_path: Path) -> None:
    files = files_in_der(certificate(tmp_path), tmp_path)
    with waiting(program, netns, files) as pid:
        process, status = report(pid)
    (library,) = process["libraries"]
    version = library["version"]
    assert version.startswith("rustls 0.20.")
    assert (library["how"], library["flavor"], status) == ("static", "rustls", 0)
    functions = library["functions"]
    assert [name.rpartition("::")[2] for name in functions] == ["decrypt", "encrypt"] * 3

    stripped = tmp_path / "stripped"
    subprocess.run(["strip", "-o", stripped, program], check=True)
    newer = changed(program, tmp_path, (b"/rustls-0.20.", b"/rustls-0.90."))
    with waiting(stripped, netns, files) as pid:
        process, status = report(pid)
    assert process["not_covered"] == [{"path": str(stripped), "reason": f"{version}, no symbols"}]
    assert status == 1
    with waiting(newer, netns, files) as pid:
        process, status = report(pid)
    version = version.replace(".20.", ".90.")
    reason = f"{version}, unsupported build"
    assert process["not_covered"] == [{"path": str(newer), "reason": reason}]
