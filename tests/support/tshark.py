"""tshark as a witness of what we write: packets as it reads them, and what it finds wrong."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import pytest

# Not only what tshark checks by itself.
_CHECKS = ("-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE")
_WRONG = "_ws.malformed || tcp.checksum.status == 0 || ip.checksum.status == 0"


def tshark(path: Path, *arguments: str) -> str:
    """Return what tshark prints of a capture."""
    _require()
    command = ["tshark", "-n", "-r", str(path), *_CHECKS, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    complaints = [line for line in done.stderr.splitlines() if "Running as user" not in line]
    assert complaints == []
    return done.stdout


def _require() -> None:
    if shutil.which("tshark") is None:
        pytest.skip("needs tshark")


def reading(capture: IO[bytes], *names: str) -> subprocess.Popen[str]:
    """Start a tshark that reads a capture as it is written, and prints fields of each packet."""
    _require()
    command = ["tshark", "-n", "-r", "-", *_fields(names)]
    return subprocess.Popen(command, stdin=capture, stdout=subprocess.PIPE, text=True)


def _fields(names: Iterable[str]) -> list[str]:
    return ["-T", "fields", *(word for name in names for word in ("-e", name))]


def fields(path: Path, *names: str, only: str = "") -> list[list[str]]:
    """Return fields of each packet, or of those that a display filter chooses."""
    chosen = ["-Y", only] if only else []
    return [line.split("\t") for line in tshark(path, *chosen, *_fields(names)).splitlines()]


def wrong(path: Path) -> list[list[str]]:
    """Return the packets that are malformed or have a wrong checksum."""
    return fields(path, "frame.number", "_ws.col.Info", only=_WRONG)


def marked(path: Path) -> list[str]:
    """Return the numbers of the packets in whose sequence tshark finds something to remark on."""
    return [number for (number,) in fields(path, "frame.number", only="tcp.analysis.flags")]
