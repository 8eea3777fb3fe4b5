"""TLS libraries of running processes and of the linker; nm, objdump and ldconfig have the truth."""

import os
import shutil
import ssl
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tcprism.tls.flavors import FLAVORS
from tcprism.tls.libraries import Found, Library, Search, find
from tcprism.tls.linker import linked_libraries
from tcprism.tls.mappings import TOO_MANY
from tests.unit.tls.disassembly import offsets

NAMES = {
    flavor.name: [name.decode() for name in flavor.functions + flavor.companion]
    for flavor in FLAVORS
}
# Maps the files in its arguments as the dynamic linker maps code, and says when it has.
LOADER = """
import mmap, os, sys
kept = []
for path in sys.argv[1:]:
    file = os.open(path, os.O_RDONLY)
    kept.append(mmap.mmap(file, 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC))
print(flush=True)
sys.stdin.read()
"""


@contextmanager
def running(*command: str) -> Iterator[int]:
    """Run a program that writes a line once it is ready and ends with its input; give its pid."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin
    assert process.stdout
    try:
        assert process.stdout.readline() == b"\n"
        yield process.pid
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


@contextmanager
def mapping(*paths: Path | str) -> Iterator[int]:
    with running(sys.executable, "-c", LOADER, *map(str, paths)) as pid:
        yield pid


def mapped(*paths: Path | str) -> Found:
    with mapping(*paths) as pid:
        return find([pid])


def linked(stem: str) -> str:
    """Return a library's path as the linker's own program lists it."""
    ldconfig = shutil.which("ldconfig", path="/sbin:/usr/sbin")
    if not ldconfig:
        pytest.skip("ldconfig is missing")
    listed = subprocess.run([ldconfig, "-p"], check=True, capture_output=True, text=True).stdout
    for line in listed.splitlines():
        if line.strip().startswith(f"{stem}.so") and "x86-64" in line:
            return line.rpartition(" ")[2]
    pytest.skip(f"{stem} is missing")


def functions_agree(library: Library) -> None:
    assert library.functions == offsets(library.path, *NAMES[library.flavor])
    assert library.functions


def test_python_with_its_own_ssl_module() -> None:
    with running(
        sys.executable, "-c", "import ssl, sys; print(flush=True); sys.stdin.read()"
    ) as pid:
        found = find([pid])
        maps = Path(f"/proc/{pid}/maps").read_text()
        for library in found.libraries:
            functions_agree(library)
    assert found.users == {pid: found.libraries}
    assert {library.flavor for library in found.libraries} == {"openssl"}
    names = {name for library in found.libraries for name in library.functions}
    assert {"SSL_read_ex", "SSL_write_ex", "SSL_free", "BIO_write"} <= names
    version = ssl.OPENSSL_VERSION
    for library in found.libraries:
        assert library.name in maps
        assert library.version
        assert version.startswith(library.version)


@pytest.mark.parametrize(
    ("stem", "flavor"), [("libgnutls", "gnutls"), ("libssl", "openssl"), ("libssl3", "nss")]
)
def test_library_of_the_linker(stem: str, flavor: str) -> None:
    path = linked(stem)
    about = os.stat(path)
    (library,) = (
        library
        for library in find().libraries
        if (library.identity.device, library.identity.inode) == (about.st_dev, about.st_ino)
    )
    assert (library.flavor, library.how) == (flavor, "dynamic")
    functions_agree(library)


def test_the_linkers_own_list() -> None:
    assert linked("libc").encode() in linked_libraries()


def test_a_cache_that_is_damaged(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    for content in (b"", b"glibc-ld.so.cache1.1", b"\xff" * 4096):
        cache.write_bytes(content)
        assert linked_libraries(str(cache)) == []
    cache.write_bytes(b"glibc-ld.so.cache1.1" + b"\xff" * 1000)
    assert linked_libraries(str(cache)) == []


def test_without_a_cache(tmp_path: Path) -> None:
    """musl has none: its linker looks into folders."""
    names = [b"libssl.so.3", b"libz.so", b"libx.so.1\xff"]
    for name in (*names, b"libssl.a", b"libso"):
        open(os.fsencode(tmp_path) + b"/" + name, "wb").close()
    folders = [os.fsencode(tmp_path), b"/nonexistent"]
    found = linked_libraries(str(tmp_path / "cache"), folders)
    assert {os.path.basename(path) for path in found} == {*names}


def test_a_crypto_library_without_tls_is_left_out() -> None:
    crypto, tls = linked("libcrypto"), linked("libssl")
    assert mapped(crypto).libraries == []
    both = mapped(crypto, tls)
    assert {os.path.basename(library.path).split(".")[0] for library in both.libraries} == {
        "libcrypto",
        "libssl",
    }


def test_a_file_with_two_names(tmp_path: Path) -> None:
    """As uv installs a wheel into two environments; each process has its own name for it."""
    here, there = tmp_path / "here.so", tmp_path / "there.so"
    shutil.copy(linked("libssl"), here)
    there.hardlink_to(here)
    with mapping(here) as first, mapping(there) as second:
        found = find([first, second])
        maps = {pid: Path(f"/proc/{pid}/maps").read_text() for pid in (first, second)}
    assert len(found.libraries) == 1
    named = {pid: [library.name for library in found.users[pid]] for pid in maps}
    assert named == {first: [str(here)], second: [str(there)]}
    assert all(name in maps[pid] for pid, (name,) in named.items())


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for /proc/PID/map_files")
@pytest.mark.parametrize("name", ["x.so", "lib\nssl (deleted)", "a\\012b \udcff"])
def test_a_copy_with_any_name(name: str, tmp_path: Path) -> None:
    copy = tmp_path / name
    shutil.copy(linked("libssl"), copy)
    with mapping(copy) as pid:
        (library,) = find([pid]).libraries
        assert library.how == "bundled"
        assert Path(library.path).read_bytes() == copy.read_bytes()
        assert library.name.isprintable()
        copy.unlink()
        (deleted,) = find([pid]).libraries
        assert deleted.path.startswith(f"/proc/{pid}/map_files/")
        assert (deleted.identity.inode, deleted.functions) == (
            library.identity.inode,
            library.functions,
        )
        os.close(os.open(deleted.path, os.O_RDONLY))


def test_each_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "x.so"
    shutil.copy(linked("libssl"), copy)
    with mapping(copy) as one, mapping(copy) as other:
        search = Search()
        first = search.find([one])
        monkeypatch.setattr("tcprism.tls.libraries.ElfFile", None)
        assert search.find([other]).libraries == first.libraries


def test_a_static_program_with_symbols(tmp_path: Path) -> None:
    compiler = shutil.which("cc") or pytest.skip("a C compiler is missing")
    source = tmp_path / "program.c"
    source.write_text(
        "#include <stdio.h>\n"
        "int SSL_do_handshake(void) { return 1; }\n"
        "int SSL_write(void) { return 2; }\n"
        'int main(void) { puts(""); fflush(stdout); getchar(); return SSL_write(); }\n'
    )
    program = tmp_path / "program"
    subprocess.run([compiler, "-o", program, source], check=True)
    with running(str(program)) as pid:
        (library,) = find([pid]).libraries
    truth = offsets(str(program), "SSL_do_handshake", "SSL_write", dynamic=False)
    assert (library.how, library.functions) == ("static", truth)
    subprocess.run(["strip", program], check=True)
    with running(str(program)) as pid:
        assert find([pid]).libraries == []


def test_node() -> None:
    node = shutil.which("node") or pytest.skip("node is missing")
    with running(node, "-e", "console.log(''); process.stdin.resume()") as pid:
        libraries = find([pid]).libraries
        about = os.stat(f"/proc/{pid}/exe")
    exports = offsets(node, *NAMES["openssl"])
    if not exports:
        pytest.skip("this node has OpenSSL in a library")
    (library,) = (each for each in libraries if each.identity.inode == about.st_ino)
    assert (library.functions, library.how) == (exports, "static")


def test_processes_that_end_or_have_no_files() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    assert find([process.pid, 2]) == Found()


def damaged() -> Iterator[bytes]:
    whole = Path(linked("libssl")).read_bytes()
    yield b"\x7fELF"
    yield b"\0" * 4096
    yield whole[:64] + b"\xff" * 4096
    for size in (65, 200, 4096, 20_000, 60_000, len(whole) - 3000):
        yield whole[:size]
    for place in (0x20, 0x28, 0x36, 0x38, 0x3A, 0x3C, 0x3E):
        yield whole[:place] + struct.pack("<H", 0xFFFF) + whole[place + 2 :]
        yield whole[:place] + struct.pack("<Q", 1 << 63) + whole[place + 8 :]
    for start in range(64, 0x9000, 2048):
        yield whole[:start] + b"\xff" * 64 + whole[start + 64 :]


def test_damaged_files(tmp_path: Path) -> None:
    """Whatever is in a file, it is left out with a reason, or its functions are in it."""
    path = tmp_path / "x.so"
    for content in damaged():
        path.write_bytes(content)
        found = mapped(path)
        for library in found.libraries:
            assert all(offset < len(content) for offset in library.functions.values())
        for reasons in found.reasons.values():
            assert set(reasons.values()) <= {"not an ELF file", "damaged ELF file"}


def test_a_process_that_maps_too_many_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tcprism.tls.libraries.MOST_FILES", 3)
    found = mapped(*(shutil.copy(linked("libssl"), tmp_path / name) for name in "abcd"))
    (reasons,) = found.reasons.values()
    assert reasons[""] == TOO_MANY
    assert len(found.libraries) <= 3
