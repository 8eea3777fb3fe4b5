"""Servers with OpenSSL that know all plaintext that they move."""

from __future__ import annotations

import re
import socket
import ssl
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

from .netns import Netns

_AT_MOST = 1 << 14  # bytes that a read returns
_RANGE = re.compile(r"bytes=(\d+)-(\d+)")


def _context(files: tuple[str, str], ciphers: str | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    if ciphers:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(ciphers)
    return context


class _Telling(ssl.SSLSocket):
    """A socket that remembers what it has read, and what it is about to write."""

    store: ObjectStore

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        size = super().recv_into(buffer, nbytes, flags)
        self.store.read[self.getpeername()[1]] += bytes(buffer[:size])
        return size

    def sendall(self, data: Any, flags: int = 0) -> None:
        self.store.written[self.getpeername()[1]] += bytes(data)
        super().sendall(data, flags)


class ObjectStore(ThreadingHTTPServer):
    """The server; `read` and `written` are by the client's port, `objects` by path."""

    daemon_threads = True

    def __init__(self, listener: socket.socket, context: ssl.SSLContext) -> None:
        super().__init__(listener.getsockname(), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.context = context
        self.read: dict[int, bytes] = defaultdict(bytes)
        self.written: dict[int, bytes] = defaultdict(bytes)
        self.objects: dict[str, bytes] = {}

    @property
    def address(self) -> str:
        return "{}:{}".format(*self.socket.getsockname())

    def finish_request(self, request: Any, client_address: Any) -> None:
        with self.context.wrap_socket(request, server_side=True) as connection:
            cast(_Telling, connection).store = self
            super().finish_request(connection, client_address)

    def handle_error(self, *_: object) -> None:
        """Say nothing of clients that end without a word: their tests tell what is missing."""


class _Handler(BaseHTTPRequestHandler):
    server: ObjectStore
    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        self.server.objects[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(200, b"")

    def do_HEAD(self) -> None:
        self._answer(200, self.server.objects[self.path])

    def do_GET(self) -> None:
        data = self.server.objects[self.path]
        wanted = _RANGE.match(self.headers.get("Range", ""))
        if not wanted:
            self._answer(200, data)
            return
        begin, end = int(wanted[1]), min(int(wanted[2]) + 1, len(data))
        self._answer(206, data[begin:end], f"bytes {begin}-{end - 1}/{len(data)}")

    def _answer(self, status: int, data: bytes, part: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.send_header("ETag", '"1"')
        if part:
            self.send_header("Content-Range", part)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@dataclass
class Echo:
    """A server with OpenSSL that sends back what it reads; `read` is what, by the client's port."""

    context: ssl.SSLContext
    listener: socket.socket
    read: dict[int, bytes] = field(default_factory=lambda: defaultdict(bytes))

    @property
    def address(self) -> str:
        return "{}:{}".format(*self.listener.getsockname())

    def run(self) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=self.listener.accept()).start()

    def _serve(self, plain: socket.socket, client: tuple[str, int]) -> None:
        with self.context.wrap_socket(plain, server_side=True) as server:
            while data := server.recv(_AT_MOST):
                self.read[client[1]] += data
                server.sendall(data)


@contextmanager
def echoing(netns: Netns, files: tuple[str, str], ciphers: str | None = None) -> Iterator[Echo]:
    """Run a server; with `ciphers` by TLS 1.2."""
    context = _context(files, ciphers)
    with netns.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        server = Echo(context, listener)
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            yield server
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@contextmanager
def keeping_objects(
    netns: Netns, files: tuple[str, str], ciphers: str | None = None
) -> Iterator[ObjectStore]:
    """Run the server in a namespace; with `ciphers` by TLS 1.2."""
    context = _context(files, ciphers)
    context.sslsocket_class = _Telling
    with netns.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        store = ObjectStore(listener, context)
        thread = threading.Thread(target=store.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield store
        finally:
            store.shutdown()
            thread.join()
