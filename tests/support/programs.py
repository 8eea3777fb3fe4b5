"""Compiles C programs of tests and benchmarks, with the compiler of the project's BPF object."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

BUILD = Path(__file__).parents[2] / "build" / "programs"
TARGETS = {64: "x86_64-linux-musl", 32: "x86-linux-musl"}
FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-pthread")


def compiled(source: Path, bits: int = 64) -> Path:
    """Return the program of a C file, for callers of so many bits, compiled if it is not there yet.

    The program is called as the source is; its directory has the digest of what is in the source's.
    """
    files = [path for path in sorted(source.parent.iterdir()) if path.suffix in (".c", ".h")]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
    program = BUILD / f"{digest[:12]}-{bits}" / source.stem
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        temporary = program.with_name(f"new-{os.getpid()}")
        command = [sys.executable, "-m", "ziglang", "cc", "-target", TARGETS[bits], *FLAGS]
        subprocess.run([*command, str(source), "-o", str(temporary)], check=True)
        temporary.rename(program)
    return program
