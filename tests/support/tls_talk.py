"""A process that talks TLS with itself in one of several ways, and says what it wrote and read.

Run as a program: way, certificate, key. It prints each call's bytes as a line of JSON: ports,
"tls_send" or "tls_recv", hexadecimal digits.
"""

import asyncio
import json
import os
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

MIB = 1 << 20
HOST = "127.0.0.1"

_said: list[tuple[int, int, str, str]] = []


def say(ports: tuple[int, int], kind: str, data: bytes) -> None:
    _said.append((*ports, kind, data.hex()))


class End:
    """One end of a session. `write` and `read` are one call each, and are said."""

    def __init__(self, session: ssl.SSLSocket) -> None:
        self.session = session
        self.ports = (session.getsockname()[1], session.getpeername()[1])

    def write(self, data: bytes) -> int:
        size = self.session.send(data)
        say(self.ports, "tls_send", data[:size])
        return size

    def read(self, most: int = MIB) -> bytes:
        data = self.session.recv(most)
        if data:
            say(self.ports, "tls_recv", data)
        return data

    def read_all(self, size: int, most: int = MIB) -> bytes:
        data = b""
        while len(data) < size:
            data += self.read(min(most, size - len(data)))
        return data


def contexts(certificate: str, key: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    client = ssl.create_default_context(cafile=certificate)
    client.check_hostname = False
    return client, server


Contexts = tuple[ssl.SSLContext, ssl.SSLContext]


@contextmanager
def session(made: Contexts, send_buffer: int = 0) -> Iterator[tuple[End, End]]:
    """Yield the client's and the server's end of a new session."""
    with socket.create_server((HOST, 0)) as listener:
        ends: list[End] = []
        raw = socket.socket()
        if send_buffer:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, send_buffer)
        raw.connect(listener.getsockname())
        accepted, _ = listener.accept()

        def serve() -> None:
            ends.append(End(made[1].wrap_socket(accepted, server_side=True)))

        thread = threading.Thread(target=serve)
        thread.start()
        client = End(made[0].wrap_socket(raw))
        thread.join()
    with client.session, ends[0].session:
        yield client, ends[0]


def blocking(made: Contexts) -> None:
    """Messages of several sizes, read whole, in pieces, and many at once."""
    with session(made) as (client, server):
        for size in (1, 100, 16_000, 16_384):
            client.write(os.urandom(size))
            server.write(server.read_all(size))
            client.read_all(size, most=max(size // 3, 1))
        for _ in range(5):
            client.write(os.urandom(50))
        server.read_all(250)


def large(made: Contexts) -> None:
    """One write of many records."""
    with session(made) as (client, server):
        reader = threading.Thread(target=server.read_all, args=(MIB,))
        reader.start()
        client.write(os.urandom(MIB))
        reader.join()


def would_block(made: Contexts) -> None:
    """Writes that do not fit, and are repeated; reads of records that are not there to the end."""
    with session(made, send_buffer=4096) as (client, server):
        left = {client: os.urandom(300_000), server: os.urandom(300_000)}
        wanted = {client: 300_000, server: 300_000}
        for end in left:
            end.session.setblocking(False)
        while any(left.values()) or any(wanted.values()):
            for end in left:
                try:
                    if left[end]:
                        left[end] = left[end][end.write(left[end][:20_000]) :]
                except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
                    pass
                try:
                    if wanted[end]:
                        wanted[end] -= len(end.read(5_000))
                except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    pass


def two_threads(made: Contexts) -> None:
    """A thread that writes and one that reads, each at its end: a session allows one at a time."""
    with session(made) as (client, server):
        for writer, reader in ((client, server), (server, client)):
            threads = [
                threading.Thread(target=reader.read_all, args=(20_000,)),
                threading.Thread(target=_write_often, args=(writer,)),
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()


def _write_often(end: End) -> None:
    for _ in range(200):
        end.write(os.urandom(100))


def one_after_the_other(made: Contexts) -> None:
    """Many sessions, whose addresses in memory are used again."""
    for number in range(60):
        with session(made) as (client, server):
            client.write(b"session %d" % number)
            server.write(server.read() + b"!")
            client.read()


def forked(made: Contexts) -> None:
    """A session that a child goes on with."""
    with session(made) as (client, server):
        client.write(b"from the parent")
        server.read()
        told, tell = os.pipe()
        child = os.fork()
        if not child:
            _said.clear()
            server.write(b"from the child")
            os.write(tell, json.dumps(_said).encode())
            os._exit(0)
        os.waitpid(child, 0)
        _said.extend(json.loads(os.read(told, 10_000)))
        client.read()


def in_memory(made: Contexts) -> None:
    """asyncio, which encrypts into memory: many sessions at once, of one thread."""
    asyncio.run(_in_memory(made))


async def _in_memory(made: Contexts) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ports = _ports(writer)
        while data := await reader.read(1000):
            say(ports, "tls_recv", data)
            say(ports, "tls_send", data[::-1])
            writer.write(data[::-1])
        writer.close()

    server = await asyncio.start_server(serve, HOST, 0, ssl=made[1])
    port = server.sockets[0].getsockname()[1]
    await asyncio.gather(*(_ask(made, port, number) for number in range(20)))
    server.close()


async def _ask(made: Contexts, port: int, number: int) -> None:
    reader, writer = await asyncio.open_connection(HOST, port, ssl=made[0])
    ports = _ports(writer)
    for turn in range(5):
        data = b"session %d, turn %d" % (number, turn)
        say(ports, "tls_send", data)
        writer.write(data)
        say(ports, "tls_recv", await reader.readexactly(len(data)))
    writer.close()
    await writer.wait_closed()


def _ports(writer: asyncio.StreamWriter) -> tuple[int, int]:
    return writer.get_extra_info("sockname")[1], writer.get_extra_info("peername")[1]


WAYS: dict[str, Callable[[Contexts], None]] = {
    way.__name__: way
    for way in (
        *(blocking, large, would_block, two_threads, one_after_the_other, forked, in_memory),
    )
}

if __name__ == "__main__":
    _, name, certificate, key = sys.argv
    WAYS[name](contexts(certificate, key))
    for said in _said:
        print(json.dumps(said))
