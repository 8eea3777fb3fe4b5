"""Plaintext of rustls: which bytes, of which socket and where in its stream, ciphertext must prove.

The other end is OpenSSL. Both ends say what they have written and read, tcpdump has the records.
rustls is 0.20, compiled here, and 0.23, as it is in two packages that have their symbols.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import rustls_talk
from tests.support.capture import capturing
from tests.support.netns import Netns, namespace
from tests.support.programs import built_by_cargo
from tests.support.server import serving
from tests.support.tls import DATA, Records, certificate, records_on_the_wire
from tests.support.tls_seen import OVERHEAD, RECORD, records_of
from tests.support.tls_servers import Echo, ObjectStore, echoing, keeping_objects
from tests.support.tracer import PATIENCE, Event, parse_ledger, tracing
from tests.unit.tls.test_doctor import report
from tests.unit.tls.test_libraries import mapping

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


def extension(package: str) -> Path:
    """Return the shared object of a package."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(f"needs {package}")
    (path,) = Path(spec.origin).parent.glob("*.so")
    return path


def talk_of_objects(netns: Netns, way: str, store: ObjectStore, trusted: str, *words: str) -> Told:
    """Have a client of a package put and get objects; return what the server says."""
    before = {*store.read}
    command = sys.executable, rustls_talk.__file__, way, store.address, *words
    environment = os.environ | {"SSL_CERT_FILE": trusted}
    subprocess.run(netns.command(*command), env=environment, check=True)
    port = store.server_address[1]
    return {
        (client, port, kind): data
        for kind, told in (("tls_send", store.read), ("tls_recv", store.written))
        for client, data in told.items()
        if client not in before
    }


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


PACKAGES = ("obstore", "_polars_runtime_32")
OBSTORE = {
    "obstore": None,
    "obstore, TLS 1.2": "ECDHE+AESGCM",
    "obstore, ChaCha20": "ECDHE+CHACHA20",
}


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
        end_entity = certificate(tmp_path_factory.mktemp("rustls"), "basicConstraints=CA:FALSE")
        stores = {
            way: stack.enter_context(keeping_objects(netns, end_entity, ciphers))
            for way, ciphers in OBSTORE.items()
        }
        for store in stores.values():
            store.objects["/table.csv"] = b"a,b\n" + b"1,2\n" * 50_000
        stack.enter_context(mapping(*(extension(package) for package in PACKAGES)))
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
            sizes = [str(size) for size in SIZES]
            for way, store in stores.items():
                told[way] = talk_of_objects(netns, "obstore", store, end_entity[0], "2", *sizes)
            store = stores["obstore"]
            told["polars"] = talk_of_objects(netns, "polars", store, end_entity[0], "/table.csv")
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
    "obstore": OVERHEAD,
    "obstore, TLS 1.2": OVERHEAD - TYPE + NONCE,
    "obstore, ChaCha20": OVERHEAD - TYPE,
    "polars": OVERHEAD,
}


@pytest.mark.parametrize("way", OVERHEADS)
def test_each_message_is_one_record(seen: Seen, way: str) -> None:
    for event, data in seen.of(way):
        assert base64.b64decode(event["payload"]) == data
        assert records_of(event, seen.wire) == [DATA]
        assert event["encrypted_bytes"] == event["bytes"] + OVERHEADS[way]
        assert (event["socket_source"], event["missed_bytes"]) == ("ciphertext", 0)
        assert event["comm"] == PACKAGE.name or way in {*OBSTORE, "polars"}
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


def test_functions_that_are_others_in_a_package(
    netns: Netns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = extension("obstore")
    shutil.copytree(library.parent, tmp_path / "obstore")
    encrypt, decrypt = b"16MessageEncrypter7encrypt\0", b"16MessageDecrypter7decrypt\0"
    copy = changed(library, tmp_path / "obstore", (encrypt, decrypt), (decrypt, encrypt))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    files = certificate(tmp_path)
    options = ("--tls", "--netns", netns.path, "--payload", "100")
    with (
        mapping(copy),
        keeping_objects(netns, files) as store,
        tracing(tmp_path / "out", *options) as tracer,
    ):
        told = talk_of_objects(netns, "obstore", store, files[0], "1", "9", "20000")
    assert len(told) == 2
    clients = {client for client, *_ in told}
    seen = [event for event in tracer.events if event["kind"].startswith("tls_")]
    assert {event["remote_port"] for event in seen} == clients  # the server's are shown
    assert not clients & {event["local_port"] for event in seen}
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
