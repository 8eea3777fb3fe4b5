"""NSS's own client and server, and their certificate."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

PORT = 4434


def database(folder: Path) -> str:
    """Make a database with a certificate for localhost; return its name."""
    if not shutil.which("selfserv"):
        pytest.skip("needs the package libnss3-tools")
    noise = folder / "noise"
    noise.write_bytes(bytes(range(100)))
    name = f"sql:{folder}"
    for words in (
        ("-N", "--empty-password"),
        ("-S", "-x", "-n", "server", "-s", "CN=localhost", "-t", "CT,C,C", "-k", "ec",
         "-q", "nistp256", "-z", str(noise)),
    ):  # fmt: skip
        subprocess.run(["certutil", *words, "-d", name], check=True, capture_output=True)
    return name


def server(database: str) -> tuple[str, ...]:
    """Return the command of a server, which answers each request with itself."""
    return ("selfserv", "-d", database, "-p", str(PORT), "-n", "server", "-V", "tls1.2:tls1.3")


def client(database: str, version: str) -> tuple[str, ...]:
    """Return the command of a client, which sends its input and prints what comes back."""
    to = ("-h", "127.0.0.1", "-p", str(PORT), "-o")
    return ("tstclnt", "-d", database, *to, "-V", f"{version}:{version}")
