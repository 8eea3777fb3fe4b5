"""Servers that tests start in a namespace of their own."""

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.netns import LISTEN, PATIENCE, Netns


@contextmanager
def serving(
    netns: Netns, log: Path, *command: str, ready: str = "", end: int = signal.SIGTERM
) -> Iterator[None]:
    """Run a server in the namespace until the body ends; the signal `end` ends it.

    It is ready when its log says `ready`, or as soon as it listens.
    """
    if not shutil.which(command[0]):
        pytest.skip(f"needs {command[0]}")
    with log.open("w") as file:
        process = subprocess.Popen(netns.command(*command), stdout=file, stderr=file)
    try:
        netns.await_state(LISTEN)
        deadline = time.monotonic() + PATIENCE
        while ready not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield
    finally:
        process.send_signal(end)
        process.wait()
