"""Fixtures of the tests that run BPF code by itself."""

from collections.abc import Callable
from pathlib import Path

import pytest

import build_bpf

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Compile `programs/NAME.bpf.c` like the object that ships, once a session."""
    directory = tmp_path_factory.mktemp("objects")

    def compile_program(name: str) -> Path:
        output = directory / f"{name}.bpf.o"
        if not output.exists():
            build_bpf.build(HERE / f"programs/{name}.bpf.c", output)
        return output

    return compile_program
