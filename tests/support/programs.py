"""Compiles programs of tests and benchmarks.

Those in C by the compiler of the project's BPF object, those in Rust by the system's.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BUILD = Path(__file__).parents[2] / "build" / "programs"
TARGETS = {64: "x86_64-linux-musl", 32: "x86-linux-musl"}
CRATES = Path("/usr/share/cargo/registry")  # of Debian's packages librust-*-dev
FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-pthread")


def compiled(source: Path, bits: int = 64) -> Path:
    """Return the program of a C file, for callers of so many bits, compiled if it is not there yet.

    The program is called as the source is; its directory has the digest of what is in the source's.
    """
    files = [path for path in sorted(source.parent.iterdir()) if path.suffix in (".c", ".h")]
    program = BUILD / f"{_digest(files)}-{bits}" / source.stem
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        temporary = program.with_name(f"new-{os.getpid()}")
        command = [sys.executable, "-m", "ziglang", "cc", "-target", TARGETS[bits], *FLAGS]
        subprocess.run([*command, str(source), "-o", str(temporary)], check=True)
        temporary.rename(program)
    return program


def built_by_cargo(package: Path) -> Path:
    """Return the program of a Rust package that is called as its directory, with its symbols.

    It is built of the crates that the system has, in half a minute, if it is not there yet.
    """
    cargo = shutil.which("cargo", path="/usr/bin") or shutil.which("cargo")
    if cargo is None or not any(CRATES.glob("rustls-*")):
        pytest.skip("needs the packages cargo and librust-rustls-dev")
    folder = BUILD / f"{_digest([package / 'Cargo.toml', package / 'src' / 'main.rs'])}-rust"
    program = folder / package.name
    if not program.exists():
        settings = ['source.crates-io.replace-with="system"', f'source.system.directory="{CRATES}"']
        options = [word for each in settings for word in ("--config", each)]
        target = folder / f"new-{os.getpid()}"
        shutil.copytree(package, target)
        subprocess.run(
            [cargo, "build", "--quiet", "--release", "--offline", *options],
            cwd=target,
            env=os.environ
            | {"CARGO_HOME": str(target / "home"), "PATH": f"/usr/bin:{os.environ['PATH']}"},
            check=True,
        )
        (target / "target" / "release" / package.name).rename(program)
        shutil.rmtree(target)
    return program


def _digest(files: list[Path]) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]
