"""Plaintext of a Go program: nats-server, whose goroutines move between threads.

It collects garbage all the time (GOGC=1), which moves stacks.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.netns import Netns
from tests.support.server import serving
from tests.support.tls import certificate
from tests.support.tls_seen import in_short
from tests.support.tracer import Event, tracing

pytestmark = pytest.mark.native

CLIENTS, MESSAGES = 12, 25

# Prints what each client wrote and read, by its port. What some write first comes with the end of
# their handshake, so that the server reads both at once.
CLIENT = """
import json, socket, ssl, sys, threading

context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
told = {}

class Eager:
    def __init__(self, plain):
        self.plain, self.read, self.written = plain, ssl.MemoryBIO(), ssl.MemoryBIO()
        self.session = context.wrap_bio(self.read, self.written)
        self.call(self.session.do_handshake)

    def call(self, function, *arguments):
        while True:
            try:
                return function(*arguments)
            except ssl.SSLWantReadError:
                self.plain.sendall(self.written.read())
                self.read.write(self.plain.recv(65536))

    def sendall(self, data):
        self.session.write(data)
        self.plain.sendall(self.written.read())

    def recv(self, size):
        return self.call(self.session.read, size)

def talk(number):
    with socket.create_connection(("127.0.0.1", 4222)) as plain:
        while not plain.recv(65536).endswith(b"\\r\\n"):
            pass
        port = plain.getsockname()[1]
        client = Eager(plain) if number % 2 else context.wrap_socket(plain)
        sent = [b'CONNECT {"verbose":false}\\r\\nSUB s%d 1\\r\\nPING\\r\\n' % number]
        read = b""
        client.sendall(sent[0])
        while not read.endswith(b"PONG\\r\\n"):
            read += client.recv(65536)
        for size in range(0, 97 * int(sys.argv[1]), 97):
            body = bytes([65 + number]) * size + b"\\r\\n"
            sent.append(b"PUB s%d %d\\r\\n" % (number, size) + body)
            client.sendall(sent[-1])
            expected = b"MSG s%d 1 %d\\r\\n" % (number, size) + body
            read += receive(client, len(expected))
        told[port] = b"".join(sent).decode(), read.decode()

def receive(client, size):
    read = b""
    while len(read) < size:
        read += client.recv(size - len(read))
    return read

threads = [threading.Thread(target=talk, args=(number,)) for number in range(int(sys.argv[2]))]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(json.dumps(told))
"""


Told = dict[int, tuple[str, str]]  # by a client's port: what it wrote, what it read


@contextmanager
def nats(netns: Netns, folder: Path, files: tuple[str, str]) -> Iterator[None]:
    """Run nats-server with TLS, which collects garbage all the time."""
    settings = folder / "settings"
    settings.write_text(
        f'listen: "127.0.0.1:4222"\n'
        f'tls {{ cert_file: "{files[0]}", key_file: "{files[1]}", timeout: 30 }}\n'
    )
    command = ("env", "GOGC=1", "nats-server", "-c", str(settings))
    with serving(netns, folder / "nats.log", *command):
        yield


def talk(netns: Netns, messages: int, clients: int) -> Told:
    """Have clients send messages to themselves; return what they say."""
    command = netns.command(sys.executable, "-c", CLIENT, str(messages), str(clients))
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    told: Told = {int(port): tuple(both) for port, both in json.loads(done.stdout).items()}
    assert len(told) == clients
    return told


def check(events: list[Event], told: Told) -> None:
    """Check what the server is seen to have read and written."""
    seen: dict[int, dict[str, str]] = defaultdict(lambda: defaultdict(str))
    # Goroutines write in turn, but a call may return after the one behind it.
    for event in sorted(events, key=lambda event: event["stream_offset"] or 0):
        payload = base64.b64decode(event["payload"]).decode()
        seen[event["remote_port"]][event["kind"]] += payload
    found = {port: (each["tls_recv"], each["tls_send"]) for port, each in seen.items()}
    assert found == told, in_short(events)
    assert {event["socket_source"] for event in events} <= {"call", "session"}
    carried = [event for event in events if event["encrypted_bytes"]]
    assert all(event["encrypted_bytes"] > event["bytes"] for event in carried)


def test_what_a_server_in_go_read_and_wrote(netns: Netns, tmp_path: Path) -> None:
    if shutil.which("nats-server") is None:
        pytest.skip("needs nats-server")
    options = ("--tls", "--netns", netns.path, "--comm", "nats-server", "--payload", "16384")
    with (
        nats(netns, tmp_path, certificate(tmp_path)),
        tracing(tmp_path / "out", *options) as tracer,
    ):
        told = talk(netns, MESSAGES, CLIENTS)
    check([event for event in tracer.events if event["kind"].startswith("tls_")], told)
