"""Servers that tests start in a namespace of their own."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.netns import LISTEN, Netns


@contextmanager
def serving(netns: Netns, log: Path, *command: str) -> Iterator[None]:
    """Run a server in the namespace until the body ends."""
    if not shutil.which(command[0]):
        pytest.skip(f"needs {command[0]}")
    with log.open("w") as file:
        process = subprocess.Popen(netns.command(*command), stdout=file, stderr=file)
    try:
        netns.await_state(LISTEN)
        yield
    finally:
        process.terminate()
        process.wait()
