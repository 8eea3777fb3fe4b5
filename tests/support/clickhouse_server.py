"""chdb behind ClickHouse's HTTP interface: clickhouse_server.py FOLDER PORT [PASSWORD].

It prints its port. Files in FOLDER-trouble say what goes wrong: inserts take as long as `stuck` is
there, `code` has the number of the error that each ends with, with `lost` the answer is lost.
"""

from __future__ import annotations

import base64
import gzip
import io
import re
import signal
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pyarrow as pa
from chdb import session

FOLDER, PORT = Path(sys.argv[1]), int(sys.argv[2])
PASSWORD = "".join(sys.argv[3:4])
TROUBLE = FOLDER.with_name(FOLDER.name + "-trouble")

_CODE = re.compile(r"Code: (\d+)")
_FORMAT = re.compile(r"\s+FORMAT\s+(\w+)\s*;?\s*$", re.IGNORECASE)
_INSERT = re.compile(r"\s*INSERT\s+INTO\s+(.*?)\s+FORMAT\s+(\w+)\s*(.*)", re.DOTALL | re.IGNORECASE)
_READS = re.compile(r"\s*(SELECT|WITH|DESCRIBE|SHOW|EXPLAIN)\b", re.IGNORECASE)
_SETTINGS = re.compile(r"insert_\w+|input_format_\w+|deduplicate_\w+|readonly|max_\w+")

_lock = threading.Lock()
_engine = session.Session(str(FOLDER))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(200, b"Ok.\n") if self.path == "/ping" else self.do_POST()

    def do_POST(self) -> None:
        body = self._body()
        given = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        if PASSWORD and self.headers.get("Authorization", "") != _basic():
            self._answer(403, b"Code: 516. DB::Exception: Authentication failed", 516)
            return
        text, data = given.get("query", ""), body
        if not text:
            text, data = body.decode("utf-8", "surrogateescape"), b""
        try:
            with _lock:
                said = _run(text, data, given)
        except Exception as error:
            code = int(found[1]) if (found := _CODE.search(str(error))) else 1002
            self._answer(500, str(error).encode(), code)
            return
        if _INSERT.match(text) and (TROUBLE / "lost").exists():
            (TROUBLE / "lost").unlink()
            self.connection.close()
            self.close_connection = True
            return
        self._answer(200, said)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "") == "chunked":
            pieces = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            body = b"".join(pieces)
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        coding = self.headers.get("Content-Encoding", "")
        if coding == "gzip":
            return gzip.decompress(body)
        if coding in ("zstd", "lz4"):
            return bytes(pa.CompressedInputStream(io.BytesIO(body), coding).read())
        return body

    def _answer(self, status: int, body: bytes, code: int = 0) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-ClickHouse-Exception-Code", str(code))
        self.send_header("X-ClickHouse-Timezone", "UTC")
        self.send_header("X-ClickHouse-Summary", "{}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def _basic() -> str:
    return "Basic " + base64.b64encode(f"writer:{PASSWORD}".encode()).decode()


def _run(text: str, data: bytes, given: dict[str, str]) -> bytes:
    _engine.query(f"USE {given.get('database', 'default')}")
    settings = {name: value for name, value in given.items() if _SETTINGS.fullmatch(name)}
    if settings.get("readonly", "0") != "0" and not _READS.match(text):
        raise RuntimeError("Code: 164. DB::Exception: Cannot execute query in readonly mode")
    if (insert := _INSERT.match(text)) and not re.search(r"\bVALUES\b", text):
        return _insert(insert, data, settings)
    return _query(text, given, settings)


def _insert(insert: re.Match[str], data: bytes, settings: dict[str, str]) -> bytes:
    while (TROUBLE / "stuck").exists():
        time.sleep(0.02)
    if (code := TROUBLE / "code").exists():
        raise RuntimeError(f"Code: {code.read_text()}. DB::Exception: as the test wants it")
    with tempfile.NamedTemporaryFile() as file:
        file.write(data or insert[3].encode("utf-8", "surrogateescape"))
        file.flush()
        chosen = ", ".join(f"{name} = '{value}'" for name, value in settings.items())
        there = f"{insert[1]} FROM INFILE '{file.name}' SETTINGS {chosen}"
        _engine.query(f"INSERT INTO {there} FORMAT {insert[2]}")
    return b""


def _query(text: str, given: dict[str, str], settings: dict[str, str]) -> bytes:
    form = given.get("default_format", "TabSeparated")
    if found := _FORMAT.search(text):
        text, form = text[: found.start()], found[1]
    parameters = {k.removeprefix("param_"): v for k, v in given.items() if k.startswith("param_")}
    said = _engine.query(text, form, params=parameters) if parameters else _engine.query(text, form)
    return bytes(said.bytes())


def main() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", PORT), Handler)
    server.daemon_threads = True
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print(server.server_address[1], flush=True)
    server.serve_forever()
    _engine.close()


main()
