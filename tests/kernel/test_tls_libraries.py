"""Tracing attaches to TLS libraries that appear while it goes on, and no odd one stops it."""

import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tcprism.errors import KernelRefused
from tcprism.events import Event
from tcprism.filters import Criteria
from tcprism.sources.request import Request
from tcprism.sources.tls_libraries import TlsLibraries
from tcprism.sources.tracing import Tracing
from tcprism.tls.libraries import Library, find
from tests.support.netns import Netns, namespace
from tests.support.tls import certificate
from tests.support.tls_seen import talk
from tests.support.tracer import PATIENCE, bpf_of
from tests.unit.tls.disassembly import offsets
from tests.unit.tls.test_libraries import linked, mapping

pytestmark = pytest.mark.native

KINDS = ("send", "recv", "tls_send", "tls_recv")
LINE = b"plain text\n"


@contextmanager
def server(netns: Netns, folder: Path) -> Iterator[None]:
    """Run a server that sends each line back, its bytes in reverse."""
    key, certificate = str(folder / "key"), str(folder / "certificate")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=localhost"],
        check=True, capture_output=True,
    )  # fmt: skip
    process = subprocess.Popen(
        netns.command("openssl", "s_server", "-rev", "-quiet", "-accept", "127.0.0.1:4433",
                      "-cert", certificate, "-key", key),
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        netns.await_state("0A")
        yield
    finally:
        process.terminate()
        process.wait()


@contextmanager
def client(netns: Netns, libraries: Path, *inside: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a client that takes its libraries from a folder; `inside`: by another command."""
    with subprocess.Popen(
        netns.command(*inside, "env", f"LD_LIBRARY_PATH={libraries}", "openssl", "s_client",
                      "-quiet", "-connect", "127.0.0.1:4433"),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.terminate()


@pytest.fixture(scope="module", autouse=True)
def openssl() -> None:
    if not shutil.which("openssl"):
        pytest.skip("needs the package openssl")


@pytest.fixture
def libraries(tmp_path: Path) -> Path:
    """Return a folder with copies of OpenSSL's libraries, which nobody uses yet."""
    folder = tmp_path / "libraries"
    folder.mkdir()
    for stem in ("libssl", "libcrypto"):
        shutil.copy(linked(stem), folder)
    return folder


def request(netns: Netns) -> Request:
    return Request(KINDS, Criteria(netns=(netns.inode,)), payload=64)


def test_a_library_that_appears(netns: Netns, tmp_path: Path, libraries: Path) -> None:
    """A program with a library of its own is soon read, and the next from its first byte."""
    with server(netns, tmp_path), Tracing(request(netns)) as tracing:
        with client(netns, libraries) as process:
            assert process.stdin
            assert process.stdout
            deadline = time.monotonic() + PATIENCE
            seen: set[int | None] = set()
            while process.pid not in seen:
                assert time.monotonic() < deadline
                process.stdin.write(LINE)
                process.stdin.flush()
                assert process.stdout.readline() == LINE[-2::-1] + b"\n"
                seen |= {event.pid for event in tracing.read() if event.kind == "tls_send"}
        with client(netns, libraries) as process:
            assert process.stdin
            assert process.stdout
            process.stdin.write(LINE)
            process.stdin.flush()
            assert process.stdout.readline() == LINE[-2::-1] + b"\n"
        tracing.stop()
        events = []
        while len(batch := tracing.drain()):
            events += [event for event in batch if event.pid == process.pid]
    moved = [(event.kind, event["payload"]) for event in events if event.kind.startswith("tls_")]
    assert moved == [("tls_send", LINE), ("tls_recv", LINE[-2::-1] + b"\n")]


def test_a_hello_of_a_library_that_was_not_known(
    netns: Netns, tmp_path: Path, libraries: Path
) -> None:
    """It has the library read at once: nobody looks at the rings meanwhile."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate(tmp_path))
    with netns.socket() as listener, Tracing(request(netns)) as tracing:
        assert tracing.libraries
        listener.bind(("127.0.0.1", 4433))
        listener.listen()
        with client(netns, libraries) as process:
            assert process.stdin
            assert process.stdout
            process.stdin.write(LINE)
            process.stdin.flush()
            plain, _ = listener.accept()
            assert plain.recv(1, socket.MSG_PEEK)  # the hello
            deadline = time.monotonic() + PATIENCE
            awaited = str(libraries / Path(linked("libssl")).name)
            while awaited not in {each.name for each in tracing.libraries.hooked}:
                assert time.monotonic() < deadline
                time.sleep(0.001)
            with context.wrap_socket(plain, server_side=True) as session:
                assert session.recv(100) == LINE
                session.sendall(LINE)
                assert process.stdout.readline() == LINE  # so it has returned from its write
        tracing.stop()
        events: list[Event] = []
        while len(batch := tracing.drain()):
            events += [event for event in batch if event.pid == process.pid]
    assert [event["payload"] for event in events if event.kind == "tls_send"] == [LINE]


# Has OpenSSL hand what it encrypts to a function of its own, as Node does, and sends it later. It
# asks for each line that it is told to, on a connection of its own; an empty line ends it.
OWN_BIO = """
import ctypes, socket, sys
from ctypes import CFUNCTYPE, c_char_p, c_int, c_long, c_void_p, c_size_t

crypto, ssl = ctypes.CDLL(sys.argv[1]), ctypes.CDLL(sys.argv[2])
for library, names in ((crypto, "BIO_meth_new BIO_new BIO_s_mem"),
                       (ssl, "TLS_client_method SSL_CTX_new SSL_new")):
    for name in names.split():
        getattr(library, name).restype = c_void_p
encrypted = []

@CFUNCTYPE(c_int, c_void_p, c_void_p, c_int)
def write(bio, data, size):
    encrypted.append(ctypes.string_at(data, size))
    return size

@CFUNCTYPE(c_long, c_void_p, c_int, c_long, c_void_p)
def control(bio, command, number, pointer):
    return command == 11  # BIO_CTRL_FLUSH

method = c_void_p(crypto.BIO_meth_new(0x4ff, b"own"))
crypto.BIO_meth_set_write(method, write)
crypto.BIO_meth_set_ctrl(method, control)
context = c_void_p(ssl.SSL_CTX_new(c_void_p(ssl.TLS_client_method())))
buffer = ctypes.create_string_buffer(16384)

def flush(connection):
    while encrypted:
        connection.sendall(encrypted.pop(0))

def receive(connection, memory):
    data = connection.recv(16384)
    crypto.BIO_write(memory, data, len(data))

for line in sys.stdin.buffer:
    if line == b"\\n":
        break
    with socket.create_connection(("127.0.0.1", 4433)) as connection:
        session = c_void_p(ssl.SSL_new(context))
        ours = c_void_p(crypto.BIO_new(method))
        crypto.BIO_set_init(ours, 1)
        memory = c_void_p(crypto.BIO_new(c_void_p(crypto.BIO_s_mem())))
        ssl.SSL_set_bio(session, memory, ours)
        ssl.SSL_set_connect_state(session)
        while (done := ssl.SSL_do_handshake(session)) != 1:
            flush(connection)
            receive(connection, memory)
        ssl.SSL_write(session, line, len(line))
        flush(connection)
        while (size := ssl.SSL_read(session, buffer, 16384)) <= 0:
            receive(connection, memory)
        print(connection.getsockname()[1], buffer.raw[:size].decode().strip(), flush=True)
        ssl.SSL_free(session)
"""


def test_memory_that_is_not_the_librarys(netns: Netns, tmp_path: Path) -> None:
    """BIO_write() is hooked as soon as somebody needs it, then all sessions have their sockets.

    Those in the library's own memory, where one write then passes two hooks, are right as before.
    """
    paths = [linked("libcrypto"), linked("libssl")]
    command = netns.command(sys.executable, "-c", OWN_BIO, *paths)
    with (
        server(netns, tmp_path),
        Tracing(request(netns)) as tracing,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as client,
    ):
        assert client.stdin
        assert client.stdout

        def ask() -> int:
            """Ask once; return the port from which that was."""
            assert client.stdin
            assert client.stdout
            client.stdin.write("line\n")
            client.stdin.flush()
            port, answer = client.stdout.readline().split()
            assert answer == "enil"
            return int(port)

        sent: dict[int, set[tuple[int, int]]] = defaultdict(set)  # by port: seq, bytes
        carried: dict[int, tuple[int, int]] = {}

        def seen() -> dict[int, str]:
            """Read what has come; return the source of each port."""
            events = [event for event in tracing.read() if event.pid == client.pid]
            for event in events:
                if event.kind == "send":
                    sent[event.local_port].add((event["seq"], event.bytes))
            written = [event for event in events if event.kind == "tls_send"]
            carried.update({e.local_port: (e["seq"], e["encrypted_bytes"]) for e in written})
            return {e.local_port: e["socket_source"] for e in written}

        first, found = ask(), seen()
        deadline = time.monotonic() + PATIENCE
        while not found:
            assert time.monotonic() < deadline
            ask()
            found |= seen()
        assert first not in found  # it was not hooked while nobody needed it
        ports = {ask(), ask(), ask()}
        while not ports <= found.keys():
            assert time.monotonic() < deadline
            found |= seen()
        assert {found[port] for port in ports} == {"ciphertext"}
        for port in ports:  # which sends what is encrypted with a call of its own
            while carried[port] not in sent[port]:
                assert time.monotonic() < deadline
                seen()
        client.communicate("\n")
        of_asyncio = talk(netns, "in_memory", certificate(tmp_path))
        of_sockets = talk(netns, "blocking", certificate(tmp_path))
        tracing.stop()
        events: list[Event] = []
        missed: set[int | None] = set()
        while len(batch := tracing.drain()):
            events += [
                event
                for event in batch
                if (event.local_port, event.remote_port, "tls_send") in of_asyncio
            ]
            missed |= {
                event["missed_bytes"]
                for event in batch
                if (event.local_port, event.remote_port, event.kind) in {**of_asyncio, **of_sockets}
            }
    assert missed == {0}
    calls = {(e.local_port, e["seq"], e.bytes) for e in events if e.kind == "send"}
    written = [event for event in events if event.kind == "tls_send"]
    assert len(written) == sum(
        len(each) for (*_, kind), each in of_asyncio.items() if kind == "tls_send"
    )
    assert all((e.local_port, e["seq"], e["encrypted_bytes"]) in calls for e in written)


def test_what_a_filter_leaves_out_is_not_taken_for_memory(netns: Netns, tmp_path: Path) -> None:
    """Or BIO_write() would be hooked for all, which costs them dear."""
    with namespace() as other, Tracing(request(netns)) as tracing:
        before = bpf_of(os.getpid())["link"]
        talk(other, "blocking", certificate(tmp_path))
        tracing.read()  # hooks what somebody has needed by now
        assert bpf_of(os.getpid())["link"] == before


@contextmanager
def reversing(netns: Netns, folder: Path) -> Iterator[None]:
    """Send back each line of several clients at once, its bytes in reverse."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate(folder))
    threads: list[threading.Thread] = []

    def serve(end: socket.socket) -> None:
        with suppress(OSError), context.wrap_socket(end, server_side=True) as session:
            while line := session.recv(100):
                session.sendall(line[-2::-1] + b"\n")

    def accept() -> None:
        with suppress(OSError):
            while True:
                threads.append(threading.Thread(target=serve, args=listener.accept()[:1]))
                threads[-1].start()

    with netns.socket() as listener:
        listener.bind(("127.0.0.1", 4433))
        listener.listen()
        threads.append(threading.Thread(target=accept))
        threads[0].start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join()


def exchange(process: subprocess.Popen[bytes], line: bytes) -> bytes:
    """Have a client say a line; return the answer."""
    assert process.stdin
    assert process.stdout
    process.stdin.write(line)
    process.stdin.flush()
    return process.stdout.readline()


def test_processes_of_two_containers_before_and_after_an_upgrade(
    netns: Netns, tmp_path: Path, libraries: Path
) -> None:
    """Each has a mount namespace of its own; one runs before tracing, with a file now deleted."""
    mounted = f'mount --bind {libraries} /mnt && exec "$@"'
    inside = ("unshare", "--mount", "sh", "-c", mounted, "sh")
    place = Path("/mnt")
    with reversing(netns, tmp_path), client(netns, place, *inside) as old:
        assert exchange(old, b"unseen\n") == b"neesnu\n"
        for path in [*libraries.iterdir()]:
            shutil.copy(path, tmp_path / "new")
            (tmp_path / "new").rename(path)
        with (
            Tracing(request(netns)) as tracing,
            client(netns, place, *inside) as new,
            client(netns, place, *inside) as newer,
        ):
            processes = {"old": old, "new": new, "newer": newer}
            exchange(new, b"first\n")  # its library is found meanwhile
            deadline = time.monotonic() + PATIENCE
            found: list[Event] = []
            while not any(event.pid == new.pid and event.kind == "tls_send" for event in found):
                assert time.monotonic() < deadline
                exchange(new, b"again\n")
                found += tracing.read()
            for name, process in processes.items():
                exchange(process, f"{name}\n".encode())
            tracing.stop()
            while len(batch := tracing.drain()):
                found += batch
    for name, process in processes.items():
        line = f"{name}\n".encode()
        seen = [event for event in found if event.pid == process.pid]
        said = [event for event in seen if event["payload"] in (line, line[-2::-1] + b"\n")]
        assert [event.kind for event in said] == ["tls_send", "tls_recv"], name
        (port,) = {event.local_port for event in seen if event.kind == "send"}
        assert {(event["socket_source"], event.local_port) for event in said} == {("call", port)}


def test_a_library_that_the_kernel_refuses(netns: Netns, libraries: Path, tmp_path: Path) -> None:
    """Anybody may map a file whose functions cannot be probed."""
    odd = tmp_path / "odd.so"
    content = bytearray(Path(linked("libssl")).read_bytes())
    for offset in offsets(linked("libssl"), "SSL_read", "SSL_write", "SSL_free").values():
        content[offset] = 0xCC  # a breakpoint
    odd.write_bytes(content)
    with mapping(odd), mapping(libraries / Path(linked("libssl")).name):
        with Tracing(request(netns)) as tracing:
            lines = "\n".join(tracing.libraries.lines if tracing.libraries else ())
        assert f"  {libraries}/" in lines
        assert str(odd) not in lines


def test_a_library_that_is_gone(libraries: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process may end, or its library be replaced, before we attach."""
    path = libraries / Path(linked("libssl")).name
    with mapping(path) as pid:
        found = find([pid])
    shutil.copy(path, libraries / "new")
    (libraries / "new").rename(path)
    monkeypatch.setattr("tcprism.sources.tls_libraries.Search.find", lambda *_: found)

    def attach(library: Library) -> bool:
        raise AssertionError(library)

    assert found.libraries
    TlsLibraries(attach, Criteria()).close()


def test_a_kernel_on_which_it_would_kill(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tcprism.sources.tls_libraries.seccomp_sees_return_probes", lambda: True)
    with pytest.raises(KernelRefused, match="may kill a program that filters its system calls"):
        TlsLibraries(lambda _: True, Criteria())
