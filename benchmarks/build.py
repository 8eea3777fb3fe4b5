"""Compiles the benchmarks' own BPF programs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = Path(__file__).with_name("programs")
BUILD = ROOT / "build/benchmarks"


def bpf_object(name: str, directory: Path = PROGRAMS) -> Path:
    """Return the path of the compiled BPF object of `NAME.bpf.c`."""
    source, output = directory / f"{name}.bpf.c", BUILD / f"{name}.bpf.o"
    if not output.exists() or output.stat().st_mtime < source.stat().st_mtime:
        output.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, str(ROOT / "tools/build_bpf.py"), str(source)]
        subprocess.run([*command, "--output", str(output)], check=True)
    return output
