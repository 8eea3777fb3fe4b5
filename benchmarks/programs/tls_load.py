"""A client and a server that talk TLS for some seconds, a process each: load, seconds, files.

Prints how often a second the client had an answer of 64 bytes, or wrote 16 KiB.
"""

import os
import socket
import ssl
import sys
import time

ANSWERED = 64
WRITTEN = 16_384


def serve(listener: socket.socket, files: list[str]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    with context.wrap_socket(listener.accept()[0], server_side=True) as end:
        while data := end.recv(WRITTEN):
            if len(data) == ANSWERED:
                end.send(data)


def ask(address: tuple[str, int], load: str, seconds: float) -> float:
    raw = socket.create_connection(address)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    data = bytes(ANSWERED if load == "ping-pong" else WRITTEN)
    with ssl._create_unverified_context().wrap_socket(raw) as end:
        begin, turns = time.monotonic(), 0
        while time.monotonic() < begin + seconds:
            for _ in range(20):
                end.send(data)
                if load == "ping-pong":
                    end.recv(ANSWERED)
            turns += 20
        return turns / (time.monotonic() - begin)


if __name__ == "__main__":
    _, load, seconds, *files = sys.argv
    with socket.create_server(("127.0.0.1", 0)) as listener:
        child = os.fork()
        if not child:
            serve(listener, files)
            os._exit(0)
        print(ask(listener.getsockname(), load, float(seconds)))
    os.waitpid(child, 0)
