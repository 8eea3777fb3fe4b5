"""Tracing attaches to TLS libraries that appear while it goes on, and no odd one stops it."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tcprism.errors import KernelRefused
from tcprism.filters import Criteria
from tcprism.sources.request import Request
from tcprism.sources.tls_libraries import TlsLibraries
from tcprism.sources.tracing import Tracing
from tcprism.tls.libraries import Library, find
from tests.support.netns import Netns
from tests.support.tracer import PATIENCE
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
def client(netns: Netns, libraries: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a client that takes its libraries from a folder."""
    with subprocess.Popen(
        netns.command("env", f"LD_LIBRARY_PATH={libraries}", "openssl", "s_client", "-quiet",
                      "-connect", "127.0.0.1:4433"),
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
    TlsLibraries(attach).close()


def test_a_kernel_on_which_it_would_kill(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tcprism.sources.tls_libraries.seccomp_sees_return_probes", lambda: True)
    with pytest.raises(KernelRefused, match="may kill a program that filters its system calls"):
        TlsLibraries(lambda _: True)
