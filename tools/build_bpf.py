"""Compile the BPF C sources into the one object that ships with the package.

The compiler is the `ziglang` package's clang, so that a build needs neither a system compiler nor
kernel headers. TCPRISM_CLANG names another clang, say a distribution's, and is used instead.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from strip_dwarf import strip_dwarf

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "bpf/tcprism.bpf.c"
OBJECT = ROOT / "src/tcprism/kernel/tcprism.bpf.o"

FLAGS = (
    "-O2",
    "-g",  # BTF is made from the debug information
    "-mcpu=v3",  # 32-bit ALU and jumps: every kernel since 5.1
    "-D__TARGET_ARCH_x86",  # the kernel that will run it: memory order, registers
    "-fno-unwind-tables",
    "-fno-asynchronous-unwind-tables",
    "-Wall",
)


class BuildError(Exception):
    """The object could not be built; the message says what to do."""


def compiler_command() -> list[str]:
    """Return the compiler and the option that selects the BPF back end."""
    if clang := os.environ.get("TCPRISM_CLANG"):
        return [clang, "--target=bpfel"]
    if find_spec("ziglang") is None:
        raise BuildError(
            "no BPF compiler: run `python3 -m pip install ziglang`,"
            " or set TCPRISM_CLANG to a clang that has the BPF back end"
        )
    return [sys.executable, "-P", "-m", "ziglang", "cc", "-target", "bpfel-freestanding-none"]


def compile_c(source: Path, output: Path) -> None:
    """Compile `source` with all its debug information.

    Raises BuildError when there is no compiler or the compiler refuses the source.
    """
    root = source.resolve().parent
    paths = (f"-ffile-prefix-map={root}=.", f"-I{ROOT / 'bpf/include'}")
    command = [*compiler_command(), *FLAGS, *paths, "-c", source.name, "-o", str(output)]
    with tempfile.TemporaryDirectory() as cache:
        zig = {"ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache}
        try:
            subprocess.run(command, cwd=root, env=os.environ | zig, check=True)
        except FileNotFoundError as error:
            raise BuildError(f"TCPRISM_CLANG: there is no {error.filename}") from error
        except subprocess.CalledProcessError as error:
            raise BuildError(f"{source} does not compile: see the messages above") from error


def build(source: Path, output: Path) -> None:
    """Compile `source`, drop its DWARF and put the object at `output` in one step.

    Raises BuildError; then `output` is as it was before.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".build-") as directory:
        unstripped = Path(directory, "unstripped.o")
        compile_c(source, unstripped)
        stripped = Path(directory, output.name)
        stripped.write_bytes(strip_dwarf(unstripped.read_bytes()))
        stripped.replace(output)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("source", nargs="?", type=Path, default=SOURCE)
    parser.add_argument("--output", type=Path, default=OBJECT)
    arguments = parser.parse_args()
    try:
        build(arguments.source, arguments.output.resolve())
    except BuildError as error:
        print(f"build_bpf: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
