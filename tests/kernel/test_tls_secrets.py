"""With --redact, no secret is in anything that is written, whatever version of HTTP carried it."""

from __future__ import annotations

import base64
import csv
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tcprism.protocols.huffman import _SYMBOLS
from tests.support.netns import namespace
from tests.support.nginx import nginx
from tests.support.tls import certificate
from tests.support.tracer import TCPRISM, Tracer

pytestmark = pytest.mark.native

AUTHORIZATION = "Bearer 9f2k-authorization-7q"
COOKIE = "sid=81ab-cookie-kz03"
SET_COOKIE = "sid=40vx-set-cookie-m1"
PATH = "/hello?token=5512-token-wq9"
BODY = "user=me&password=77-password-8x"


def huffman(text: str) -> bytes:
    """Return HPACK's code of a text (RFC 7541, appendix B), as far as it fills bytes."""
    codes: dict[int, str] = {}
    code, before = 0, 5
    for length, symbols in _SYMBOLS.items():
        code <<= length - before
        before = length
        for symbol in bytes.fromhex(symbols):
            codes[symbol] = f"{code:0{length}b}"
            code += 1
    bits = "".join(codes[byte] for byte in text.encode())
    whole = len(bits) // 8
    return int(bits[: 8 * whole], 2).to_bytes(whole)


HEADERS = (AUTHORIZATION, COOKIE, SET_COOKIE, PATH)
SECRETS = [re.split("[ =]", text)[-1].encode() for text in (*HEADERS, BODY)]
SECRETS += map(huffman, HEADERS)


def text(path: Path) -> bytes:
    rows = re.findall(rb"^ {4}[0-9a-f]{4}  ([0-9a-f ]{49})", path.read_bytes(), re.M)
    return b"".join(bytes.fromhex(row.decode()) for row in rows)


def json_lines(path: Path) -> bytes:
    events = map(json.loads, path.read_text().splitlines())
    return b"".join(base64.b64decode(event.get("payload") or "") for event in events)


def comma_separated(path: Path) -> bytes:
    csv.field_size_limit(1 << 20)
    with path.open(newline="") as file:
        return b"".join(base64.b64decode(row["payload"]) for row in csv.DictReader(file))


def parquet(path: Path) -> bytes:
    column = pytest.importorskip("pyarrow.parquet").read_table(path)["payload"]
    return b"".join(value or b"" for value in column.to_pylist())


def arrow(path: Path) -> bytes:
    column = pytest.importorskip("pyarrow").ipc.open_stream(path.read_bytes()).read_all()
    return b"".join(value or b"" for value in column["payload"].to_pylist())


# How to write a recording, and the payload in what was written.
WAYS: dict[str, tuple[list[str], Callable[[Path], bytes]]] = {
    "text": (["replay", "--payload-style", "hex"], text),
    "json": (["export", "--to", "json"], json_lines),
    "csv": (["export", "--to", "csv"], comma_separated),
    "parquet": (["export", "--to", "parquet"], parquet),
    "arrow": (["export", "--to", "arrow"], arrow),
    "pcapng": (["export", "--to", "pcapng", "--packets", "plaintext"], Path.read_bytes),
    "query": (["query", "--format", "json"], json_lines),
}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same requests, recorded without and with --redact, and seen as requests."""
    if not shutil.which("curl"):
        pytest.skip("needs curl")
    folder = tmp_path_factory.mktemp("secrets")
    files = certificate(folder)
    paths = {name: folder / name for name in ("plain", "redacted", "requests")}
    with namespace() as netns, nginx(netns, folder, "http2", files, SET_COOKIE):
        chosen = ("--tls", "--netns", netns.path, "--payload", "1024")
        tracers = [
            Tracer(paths["plain"], *chosen, view="record", written=(), fork=True),
            Tracer(paths["redacted"], *chosen, "--redact", view="record", written=(), fork=True),
            Tracer(
                paths["requests"], *chosen, "--redact", "--show-values", view="requests", fork=True
            ),
        ]
        try:
            for tracer in tracers:
                tracer.await_attached()
            given = ["-H", f"Authorization: {AUTHORIZATION}", "-b", COOKIE, "-d", BODY]
            for version in ("--http1.1", "--http2"):
                address = f"https://127.0.0.1:8080{PATH}"
                netns.run("curl", "-s", version, "--cacert", files[0], *given, address)
            for tracer in tracers:
                assert tracer.stop() == 0
        finally:
            for tracer in tracers:
                tracer.close()
    return paths


def written(recording: Path, command: list[str]) -> Path:
    """Write a recording in a way; return the file."""
    output = recording.parent / "written"
    words = [TCPRISM, *command, str(recording)]
    if command[0] == "query":
        with output.open("wb") as file:
            sql = "SELECT payload FROM events WHERE payload IS NOT NULL"
            subprocess.run([*words, sql], check=True, stdout=file, stderr=subprocess.DEVNULL)
    else:
        subprocess.run([*words, "--output", str(output)], check=True, stderr=subprocess.DEVNULL)
    return output


def found(path: Path, payload: bytes) -> Iterator[bytes]:
    content = path.read_bytes()
    return (secret for secret in SECRETS if secret in payload or secret in content)


@pytest.mark.parametrize("way", WAYS)
def test_what_a_recording_is_written_as(recorded: dict[str, Path], way: str) -> None:
    command, payload = WAYS[way]
    path = written(recorded["plain"], command)
    assert [*found(path, payload(path))] == SECRETS  # or they would be searched for in vain
    path = written(recorded["redacted"], command)
    assert not [*found(path, payload(path))]


def test_requests_and_the_recording_itself(recorded: dict[str, Path]) -> None:
    assert not [*found(recorded["redacted"], b"")]
    told = [json.loads(line) for line in recorded["requests"].read_text().splitlines()]
    answers = [(one["protocol"], one["status"]) for one in told if one["protocol"] != "tls"]
    assert answers == [("http", "200"), ("http2", "200")]
    assert not [*found(recorded["requests"], b"")]
