"""The compiled object: the same bytes everywhere, without DWARF, and still readable by libbpf."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import build_bpf
import list_requirements
from strip_dwarf import strip_dwarf

SOURCES = build_bpf.SOURCE.parent


def bpftool(*arguments: str | Path) -> str:
    if shutil.which("bpftool") is None:
        pytest.skip("needs bpftool")
    return subprocess.check_output(["bpftool", *arguments], text=True)


@pytest.fixture(scope="module")
def unstripped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The object as the compiler writes it."""
    path = tmp_path_factory.mktemp("object") / "tcprism.bpf.o"
    build_bpf.compile_c(build_bpf.SOURCE, path)
    return path


@pytest.fixture(scope="module")
def stripped(unstripped: Path) -> Path:
    path = unstripped.with_name("stripped.bpf.o")
    path.write_bytes(strip_dwarf(unstripped.read_bytes()))
    return path


def test_the_same_sources_elsewhere_give_the_same_bytes(tmp_path: Path) -> None:
    objects = []
    for name in ("one", "another"):
        copy = shutil.copytree(SOURCES, tmp_path / name / "bpf")
        output = tmp_path / name / "out.o"
        build_bpf.build(copy / build_bpf.SOURCE.name, output)
        objects.append(output.read_bytes())
    assert objects[0] == objects[1]
    assert str(tmp_path).encode() not in objects[0]


def test_types_survive_stripping(unstripped: Path, stripped: Path) -> None:
    assert stripped.stat().st_size < unstripped.stat().st_size
    dumps = [bpftool("btf", "dump", "file", path) for path in (unstripped, stripped)]
    assert dumps[0] == dumps[1]
    assert "'message'" in dumps[0]


def test_libbpf_finds_the_same_programs_and_maps(unstripped: Path, stripped: Path) -> None:
    """A skeleton lists what libbpf found; what follows is the object itself."""
    skeletons = [
        bpftool("gen", "skeleton", path, "name", "tcprism").partition("elf_bytes")[0]
        for path in (unstripped, stripped)
    ]
    assert skeletons[0] == skeletons[1]
    assert "bpf_program" in skeletons[0]


@pytest.mark.parametrize("image", [b"", b"\x7fELF", Path(sys.executable).read_bytes()[:4096]])
def test_only_bpf_objects_are_stripped(image: bytes) -> None:
    with pytest.raises(ValueError, match="BPF object"):
        strip_dwarf(image)


def test_a_source_that_does_not_compile_leaves_the_old_object(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source, output = tmp_path / "bad.bpf.c", tmp_path / "bad.bpf.o"
    source.write_text("int unfinished(")
    output.write_bytes(b"old")
    with pytest.raises(build_bpf.BuildError, match=r"bad\.bpf\.c does not compile"):
        build_bpf.build(source, output)
    assert output.read_bytes() == b"old"
    assert {path.name for path in tmp_path.iterdir()} == {"bad.bpf.c", "bad.bpf.o"}
    assert "error:" in capfd.readouterr().err


def check_syntax(*sources: Path, flags: tuple[str, ...] = build_bpf.FLAGS) -> str:
    """Return what the compiler says of C sources, each by itself; nothing if they are well."""
    clang = os.environ.get("TCPRISM_CLANG")
    command = [clang] if clang else [sys.executable, "-m", "ziglang", "clang"]
    options = ("--target=bpfel", "-Werror", "-fsyntax-only", f"-I{SOURCES / 'include'}")
    return subprocess.run(
        [*command, *flags, *options, *sources], stderr=subprocess.PIPE, text=True, check=False
    ).stderr


def test_each_header_and_each_probe_compiles_by_itself(tmp_path: Path) -> None:
    sources = list(SOURCES.glob("probes/*.c"))
    for header in SOURCES.glob("include/tcprism/*.h"):
        sources.append(tmp_path / f"{header.stem}.c")
        sources[-1].write_text(f'#include "tcprism/{header.name}"\n')
    assert check_syntax(*sources) == ""


def test_probes_are_short() -> None:
    lengths = {path.name: len(path.read_text().splitlines()) for path in SOURCES.glob("probes/*")}
    assert not {name: length for name, length in lengths.items() if length > 150}


def test_programs_at_uprobes_keep_their_stack() -> None:
    """All begin as UPROBE() has it: the kernel would have two threads share another stack."""
    for path in SOURCES.glob("probes/*"):
        assert not re.search(r'SEC\("u(ret)?probe', path.read_text()), path


def test_rings_refuse_an_architecture_that_needs_barriers() -> None:
    flags = tuple(flag for flag in build_bpf.FLAGS if "TARGET_ARCH" not in flag)
    assert "x86-64 only" in check_syntax(build_bpf.SOURCE, flags=flags)


def test_a_compiler_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TCPRISM_CLANG", "/nowhere/clang")
    with pytest.raises(build_bpf.BuildError, match="TCPRISM_CLANG: there is no /nowhere/clang"):
        build_bpf.build(build_bpf.SOURCE, tmp_path / "out.o")


def test_a_compiler_that_is_there_is_not_installed() -> None:
    def names(compiler_is_there: bool) -> set[str]:
        wanted = list_requirements.requirements(compiler_is_there)
        return {requirement.partition(">=")[0] for requirement in wanted}

    assert names(False) == names(True) | {"ziglang"}
    assert names(True) == {"numpy", "click", "hatchling", "editables", "pip"}
