"""The demo's programs: a server, a reader of pages over IPv4, an uploader of files over IPv6."""

import itertools
import socket
import threading
import time
from pathlib import Path
from typing import BinaryIO

PORT = 8080
ADDRESSES = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
PAUSE = 0.2  # seconds between two requests

GREETING = b"Hello! Each line that you see was recorded inside the kernel.\n"
REPORT = b"".join(
    b'{"row": %d, "text": "a body of many segments, some of which get lost"}\n' % row
    for row in range(200)
)
PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40

PAGES = {"/": ("text/plain", GREETING), "/report.json": ("application/json", REPORT)}
END_OF_HEAD = b"\r\n\r\n"


def listen() -> list[socket.socket]:
    """Return sockets that listen on both loopback addresses; who listens is the server."""
    _call_oneself("demo-server")
    return [
        socket.create_server((address, PORT), family=family)
        for family, address in ADDRESSES.items()
    ]


def serve(listeners: list[socket.socket]) -> None:
    """Be the server; never returns."""
    for listener in listeners[1:]:
        threading.Thread(target=_accept, args=(listener,), daemon=True).start()
    _accept(listeners[0])


def _accept(listener: socket.socket) -> None:
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_answer_all, args=(connection,), daemon=True).start()


def _answer_all(connection: socket.socket) -> None:
    # Threads are born with their parent's name; the tracer shows each thread's own.
    _call_oneself("demo-server")
    with connection, connection.makefile("rb") as requests:
        while head := _read_head(requests):
            requests.read(_content_length(head))
            for piece in _answer(head):
                connection.sendall(piece)


def _answer(head: list[bytes]) -> list[bytes]:
    method, path, _ = head[0].decode().split()
    if method == "POST":
        return [b"HTTP/1.1 201 Created\r\nContent-Length: 0" + END_OF_HEAD]
    kind, body = PAGES[path]
    fields = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}"
    return [fields.encode() + END_OF_HEAD, body]


def read_pages() -> None:
    """Be a client that asks for one page after the other; never returns."""
    _call_oneself("demo-reader")
    with _connect(socket.AF_INET) as connection, connection.makefile("rb") as answers:
        for path in itertools.cycle(PAGES):
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: demo".encode() + END_OF_HEAD)
            answers.read(_content_length(_read_head(answers)))
            time.sleep(PAUSE)


def upload_files() -> None:
    """Be a client that uploads one file after the other, each on a connection of its own."""
    _call_oneself("demo-uploader")
    for number in itertools.count(1):
        with _connect(socket.AF_INET6) as connection, connection.makefile("rb") as answers:
            fields = f"POST /{number}.png HTTP/1.1\r\nHost: demo\r\nContent-Length: {len(PICTURE)}"
            connection.sendall(fields.encode() + END_OF_HEAD)
            connection.sendall(PICTURE)
            _read_head(answers)
        time.sleep(PAUSE)


def _connect(family: socket.AddressFamily) -> socket.socket:
    connection = socket.socket(family, socket.SOCK_STREAM)
    connection.connect((ADDRESSES[family], PORT))
    return connection


def _read_head(messages: BinaryIO) -> list[bytes]:
    """Return the lines before an empty line; none when the other side has closed."""
    lines = []
    while (line := messages.readline()).strip():
        lines.append(line.strip())
    return lines


def _content_length(head: list[bytes]) -> int:
    fields = dict(line.split(b": ", 1) for line in head[1:])
    return int(fields.get(b"Content-Length", 0))


def _call_oneself(name: str) -> None:
    Path("/proc/thread-self/comm").write_text(name)
