"""Go's functions, in programs that Go builds and in one of Debian; objdump has the truth."""

import os
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tcprism.tls.elf import ElfFile, Unreadable
from tcprism.tls.golang import FUNCTIONS, GoProgram, go_program
from tcprism.tls.libraries import find
from tests.unit.tls.disassembly import offsets
from tests.unit.tls.test_libraries import mapping

PROGRAM = """
package main

import "crypto/tls"

func main() {
	connection, err := tls.Dial("tcp", "127.0.0.1:1", nil)
	if err == nil {
		connection.Write([]byte("x"))
		connection.Read(make([]byte, 9))
		connection.Close()
	}
}
"""
BUILDS = {
    "static": ({"CGO_ENABLED": "0"}, []),
    "pie": ({"CGO_ENABLED": "0"}, ["-buildmode=pie"]),
    "external": ({"CGO_ENABLED": "1"}, ["-ldflags=-linkmode=external"]),
}


def examine(path: Path) -> GoProgram | None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return go_program(ElfFile(descriptor))
    finally:
        os.close(descriptor)


@pytest.fixture(scope="module")
def debians() -> Path:
    return Path(shutil.which("nats-server", path="/usr/sbin:/usr/bin") or pytest.skip("no nats"))


@pytest.fixture(scope="module", params=BUILDS)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    go = shutil.which("go") or pytest.skip("Go is missing")
    environment, options = BUILDS[request.param]
    folder = tmp_path_factory.mktemp("go")
    (folder / "main.go").write_text(PROGRAM)
    subprocess.run(
        [go, "build", *options, "-o", "program", "main.go"],
        cwd=folder,
        env=os.environ | environment,
        check=True,
    )
    return folder / "program"


def returns_agree(path: Path, program: GoProgram, name: str) -> None:
    """Compare with what objdump disassembles from the entry up to the padding after the end."""
    entry, returns = program.entries[name], program.returns[name]
    headers = subprocess.run(
        ["readelf", "-lW", path], check=True, capture_output=True, text=True
    ).stdout
    for offset, address, size in re.findall(r"LOAD +0x(\w+) 0x(\w+) 0x\w+ 0x(\w+) .*R E", headers):
        if int(offset, 16) <= entry < int(offset, 16) + int(size, 16):
            shift = int(address, 16) - int(offset, 16)
            break
    shown = subprocess.run(
        [
            "objdump",
            "-d",
            f"--start-address={entry + shift}",
            f"--stop-address={entry + shift + 8192}",
            path,
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    function = re.split(r"\n[^\n]*\tint3", shown)[0]
    found = re.findall(r"^ *([0-9a-f]+):\t[^\t]+\tret", function, re.M)
    assert [int(address, 16) - shift for address in found] == [*returns]


def test_what_go_builds(built: Path, tmp_path: Path) -> None:
    names = [name.decode() for name in FUNCTIONS]
    program = examine(built)
    assert program
    version = subprocess.run(["go", "version"], check=True, capture_output=True, text=True).stdout
    assert program.version
    assert program.version.replace("Go ", "go") in version.split()
    assert program.entries == offsets(str(built), *names, dynamic=False)
    for name in names:
        returns_agree(built, program, name)
    stripped = tmp_path / "stripped"
    subprocess.run(["strip", "-o", stripped, built], check=True)
    assert examine(stripped) == program


def test_what_debian_builds(debians: Path) -> None:
    program = examine(debians)
    assert program
    for name in program.entries:
        returns_agree(debians, program, name)
    assert {"crypto/tls.(*Conn).Read", "crypto/tls.(*Conn).Write"} <= program.entries.keys()
    assert len(program.returns["crypto/tls.(*Conn).Write"]) > 1


def test_as_a_library(debians: Path) -> None:
    with mapping(debians) as pid:
        (library,) = find([pid]).libraries
    program = examine(debians)
    assert program
    assert (library.flavor, library.how, library.version) == ("go", "static", program.version)
    assert (library.functions, library.returns) == (program.entries, program.returns)


def test_without_a_disassembler(debians: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "iced_x86", None)
    with pytest.raises(Unreadable, match=r"pip install 'tcprism\[tls\]'"):
        examine(debians)


def test_what_is_no_go_program() -> None:
    assert examine(Path(sys.executable)) is None


def test_damaged_tables(debians: Path, tmp_path: Path) -> None:
    """Whatever is in the table: the right places, or one reason."""
    whole = debians.read_bytes()
    right = examine(debians)
    copy = tmp_path / "copy"
    magic = re.search(rb"\xf0\xff\xff\xff\0\0\x01\x08", whole)
    assert magic
    for place in range(magic.start(), magic.start() + 72, 4):
        for value in (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x01\0\0\0"):
            copy.write_bytes(whole[:place] + value + whole[place + 4 :])
            found: object = None
            with suppress(Unreadable):
                found = examine(copy)
            assert found in (None, right)
