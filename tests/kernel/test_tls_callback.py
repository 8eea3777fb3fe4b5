"""A server's handshake, in whose callback it is a client of another server."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from tests.support.capture import capturing
from tests.support.netns import Netns
from tests.support.tls import certificate, records_on_the_wire
from tests.support.tls_seen import Seen, Told, check_records, payloads, plaintext
from tests.support.tracer import tracing

pytestmark = pytest.mark.native

TALK = """
import json, os, socket, ssl, sys, threading
certificate, key = sys.argv[1:]

def say(end, kind, data):
    ports = end.getsockname()[1], end.getpeername()[1]
    os.write(1, json.dumps([*ports, kind, data.decode()]).encode() + b"\\n")

def send(end, data):
    end.sendall(data)
    say(end, "tls_send", data)

def receive(end):
    if data := end.recv(100):
        say(end, "tls_recv", data)
    return data

def serve(listener, callback=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.sni_callback = callback
    with listener, context.wrap_socket(listener.accept()[0], server_side=True) as end:
        while data := receive(end):
            send(end, data.upper())

def ask(listener, *words):
    context = ssl._create_unverified_context()
    raw = socket.create_connection(listener.getsockname())
    with context.wrap_socket(raw, server_hostname="name") as end:
        for word in words:
            send(end, word)
            receive(end)

front, back = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
may = lambda *_: ask(back, b"may I serve this name?", b"really?")
threads = [
    threading.Thread(target=serve, args=arguments) for arguments in ((front, may), (back,))
]
for thread in threads:
    thread.start()
ask(front, b"first", b"and second")
for thread in threads:
    thread.join()
"""


def test_a_session_in_the_callback_of_another(netns: Netns, tmp_path: Path) -> None:
    command = netns.command(sys.executable, "-c", TALK, *certificate(tmp_path))
    with (
        capturing(netns, "lo", tmp_path / "pcap", "127.0.0.1"),
        tracing(tmp_path / "out", "--tls", "--netns", netns.path, "--payload", "100") as tracer,
    ):
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    told: Told = defaultdict(list)
    for line in done.stdout.splitlines():
        local, remote, kind, data = json.loads(line)
        told[local, remote, kind].append(data.encode())
    events = plaintext(tracer.events)
    assert payloads(events) == told
    assert {event["missed_bytes"] for event in events} == {0}
    check_records(Seen(told, records_on_the_wire(tmp_path / "pcap"), events))
