"""The generator of _wire.py, fed with what the compiler makes of events.h."""

import subprocess
import sys
from pathlib import Path

import pytest

import generate_wire

ROOT = Path(__file__).resolve().parents[2]
ANCHORS = """
#include "tcprism/events.h"
struct counters counters; struct lane lane; struct effort effort; struct config config;
"""
ANCHORS += "".join(f"struct {name} {name};" for name in generate_wire.RECORDS)
ANCHORS += "".join(f"enum {name} {name};" for name in generate_wire.ENUMS)


def compile_bpf(source: str, output: Path) -> Path:
    flags = ["-target", "bpfel-freestanding", "-O2", "-g", "-mcpu=v3", "-xc", "-c", "-"]
    include = ["-I", str(ROOT / "bpf/include"), "-o", str(output)]
    compiler = [sys.executable, "-m", "ziglang", "cc"]
    subprocess.run([*compiler, *flags, *include], input=source.encode(), check=True)
    return output


def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
    tool = [sys.executable, str(ROOT / "tools/generate_wire.py"), *map(str, arguments)]
    return subprocess.run(tool, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def anchors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_bpf(ANCHORS, tmp_path_factory.mktemp("bpf") / "anchors.o")


def test_checked_in_file_is_what_the_header_says(anchors: Path) -> None:
    result = run(anchors, "--check")
    assert (result.returncode, result.stderr) == (0, "")


def test_check_notices_a_difference(
    anchors: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stale = tmp_path / "_wire.py"
    stale.write_text(generate_wire.OUTPUT.read_text().replace('"pid"', '"tgid"'))
    monkeypatch.setattr(generate_wire, "OUTPUT", stale)
    monkeypatch.setattr(generate_wire, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["generate_wire.py", str(anchors), "--check"])
    assert generate_wire.main() == 1
    assert "_wire.py does not match" in capsys.readouterr().err


def test_missing_type_is_named(tmp_path: Path) -> None:
    result = run(compile_bpf("int unused;", tmp_path / "empty.o"), "--check")
    assert result.returncode == 1
    assert "no BTF for 'event_kind'" in result.stderr


@pytest.mark.parametrize(
    "content",
    [b"", b"#!/bin/sh\n", b"\x7fELF\x02\x01" + bytes(60)],
    ids=["empty", "script", "no sections"],
)
def test_not_an_object(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "object.o"
    path.write_bytes(content)
    result = run(path)
    assert result.returncode == 1
    assert str(path) in result.stderr
    assert "Traceback" not in result.stderr


def test_types_of_fields(tmp_path: Path) -> None:
    source = """
    typedef const unsigned short number;
    struct inner { int a; };
    struct sample {
        struct inner inner;
        number wide __attribute__((btf_decl_tag("a \\"text\\"")));
        signed char small;
        volatile unsigned long long list[3];
        char name[8];
        unsigned char reserved[8];
    } sample;
    """
    image = compile_bpf(source, tmp_path / "sample.o").read_bytes()
    btf = generate_wire.parse_btf(generate_wire.elf_section(image, ".BTF"))
    found = {
        member.name: (member.format, member.offset, member.doc)
        for member in generate_wire.struct_members(btf, "sample")
    }
    assert found == {
        "inner": ("inner", 0, ""),
        "wide": ("<u2", 4, 'a "text"'),
        "small": ("i1", 6, ""),
        "list": ("(3,)<u8", 8, ""),
        "name": ("S8", 32, ""),
    }
