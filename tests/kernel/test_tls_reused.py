"""Ids of threads and addresses of sessions that are used again: what was there before has ended."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict

import pytest

from tests.support.netns import namespace
from tests.support.tls import certificate
from tests.support.tls_seen import Told, payloads, plaintext
from tests.support.tracer import Event, tracing

# Without randomized addresses, a larger environment puts the second program's stack below the
# first one's, as chance does otherwise.
TALK = """
import ctypes, json, os, socket, ssl, sys, threading
way, turn, certificate, key = sys.argv[1:]
READ = "0"  # the number of the system call

def say(raw, kind, data):
    ports = raw.getsockname()[1], raw.getpeername()[1]
    print(json.dumps([*ports, kind, data.decode()]), flush=True)

def serve(listener):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    if way == "session":
        context.set_ecdh_curve("secp384r1")  # a HelloRetryRequest asks for it
    for _ in range(2 if way == "session" else 1):
        with context.wrap_socket(listener.accept()[0], server_side=True) as end:
            while data := end.recv(100):
                end.sendall(data.upper())

def program():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    end = context.wrap_socket(socket.create_connection(listener.getsockname()))
    word = f"program {turn}".encode()
    end.send(word)
    say(end, "tls_send", word)
    say(end, "tls_recv", end.recv(100))
    if turn == "1":
        threading.Thread(target=go_on_when_it_reads).start()
        end.recv(100)

def go_on_when_it_reads():
    while open(f"/proc/self/task/{os.getpid()}/syscall").read().split()[0] != READ:
        pass
    command = [sys.executable, "-c", sys.orig_argv[2], way, "2", certificate, key]
    os.execve(sys.executable, command, {**os.environ, "MORE": "x" * 100_000})

def session():
    lib = ctypes.CDLL("libssl.so.3")
    pointer = ctypes.c_void_p
    for name in ("TLS_method", "SSL_CTX_new", "SSL_new", "BIO_s_mem", "BIO_new"):
        getattr(lib, name).restype = pointer
    end = pointer(lib.SSL_new(pointer(lib.SSL_CTX_new(pointer(lib.TLS_method())))))
    incoming, outgoing = (pointer(lib.BIO_new(pointer(lib.BIO_s_mem()))) for _ in range(2))
    lib.SSL_set_bio(end, incoming, outgoing)
    room = ctypes.create_string_buffer(65536)
    for number in range(2):
        raw = socket.create_connection(listener.getsockname())

        def until_done(action, *arguments):
            while (result := action(end, *arguments)) <= 0:
                if (size := lib.BIO_read(outgoing, room, len(room))) > 0:
                    raw.sendall(room.raw[:size])
                data = raw.recv(65536)
                lib.BIO_write(incoming, data, len(data))
            return result

        until_done(lib.SSL_connect)
        word = b"session %d" % number
        lib.SSL_write(end, word, len(word))
        say(raw, "tls_send", word)
        size = until_done(lib.SSL_read, room, len(room))
        say(raw, "tls_recv", room.raw[:size])
        lib.SSL_shutdown(end)
        lib.SSL_clear(end)
        lib.BIO_ctrl(outgoing, 1, 0, None)  # BIO_CTRL_RESET
        raw.close()

listener = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=serve, args=(listener,), daemon=True).start()
globals()[way]()
"""


@pytest.fixture(scope="module")
def events(
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, tuple[Told, list[Event]]]:
    folder = tmp_path_factory.mktemp("reused")
    files = certificate(folder)
    told: dict[str, Told] = {}
    chosen = ("--tls", "--payload", "100", "--netns")
    with namespace() as netns, tracing(folder / "out", *chosen, netns.path) as tracer:
        for way in ("program", "session"):
            command = ["setarch", "-R", sys.executable, "-c", TALK, way, "1", *files]
            done = subprocess.run(netns.command(*command), check=True, stdout=-1, text=True)
            told[way] = defaultdict(list)
            for line in done.stdout.splitlines():
                local, remote, kind, data = json.loads(line)
                told[way][local, remote, kind].append(data.encode())
    seen = plaintext(tracer.events)
    return {
        way: (said, [e for e in seen if e["local_port"] in {key[0] for key in said}])
        for way, said in told.items()
    }


@pytest.mark.parametrize("way", ["program", "session"])
def test_what_the_next_one_writes_and_reads(
    events: dict[str, tuple[Told, list[Event]]], way: str
) -> None:
    told, seen = events[way]
    assert len(told) == 4
    assert payloads(seen) == told
    assert {event["missed_bytes"] for event in seen} == {0}
