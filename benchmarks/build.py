"""Compiles the benchmarks' own programs, with the compiler of the project's BPF object."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = Path(__file__).with_name("programs")
BUILD = ROOT / "build/benchmarks"
_TARGET = ("-target", "x86_64-linux-musl", "-static", "-std=gnu11", "-O2", "-Wall", "-Wextra")


def _build(source: Path, output: Path, command: list[str]) -> Path:
    if not output.exists() or output.stat().st_mtime < source.stat().st_mtime:
        output.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(command, check=True)
    return output


def native_program(name: str) -> Path:
    """Return the path of the compiled C program `programs/NAME.c`."""
    source, output = PROGRAMS / f"{name}.c", BUILD / name
    compiler = [sys.executable, "-m", "ziglang", "cc", *_TARGET]
    return _build(source, output, [*compiler, str(source), "-o", str(output)])


def bpf_object(name: str) -> Path:
    """Return the path of the compiled BPF object of `programs/NAME.bpf.c`."""
    source, output = PROGRAMS / f"{name}.bpf.c", BUILD / f"{name}.bpf.o"
    compiler = [sys.executable, str(ROOT / "tools/build_bpf.py")]
    return _build(source, output, [*compiler, str(source), "--output", str(output)])
