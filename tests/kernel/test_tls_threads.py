"""A session in memory that threads share, some of which a filter leaves out."""

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.capture import capturing
from tests.support.netns import Netns
from tests.support.tls import certificate, records_on_the_wire
from tests.support.tls_seen import plaintext
from tests.support.tracer import tracing

pytestmark = pytest.mark.native

# The socket is the chosen thread's alone; the session's calls are now this thread's, now another's.
TALK = """
import socket, ssl, sys, threading
certificate, key, *turns = sys.argv[1:]

def rename(name):
    with open(f"/proc/self/task/{threading.get_native_id()}/comm", "w") as file:
        file.write(name)

def by_another(action):
    def run():
        rename("another")
        action()
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()

def serve(raw):
    rename("server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.num_tickets = 0
    context.load_cert_chain(certificate, key)
    with context.wrap_socket(raw, server_side=True) as end:
        while told := end.recv(100):
            end.sendall(told.upper())

BY = {"chosen": lambda action: action(), "another": by_another}
rename("chosen")
with socket.create_server(("127.0.0.1", 0)) as listener:
    raw = socket.create_connection(listener.getsockname())
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
end = context.wrap_bio(incoming, outgoing)

def shake():
    try:
        end.do_handshake()
    except ssl.SSLWantReadError:
        pass

shakes, *talks = turns
while not end.version() or outgoing.pending:
    BY[shakes](shake)
    raw.sendall(outgoing.read())
    if not end.cipher():
        incoming.write(raw.recv(65536))
for number, who in enumerate(talks):
    word = f"{who} {number} ".encode() * 3
    BY[who](lambda: end.write(word))
    raw.sendall(outgoing.read())
    incoming.write(raw.recv(65536))
    BY[who](lambda: end.read(100))
"""


@pytest.mark.parametrize(
    "turns",
    [
        ("chosen", "chosen", "another", "chosen", "another", "chosen"),
        ("another", "chosen", "chosen", "another", "chosen"),
    ],
    ids=["from its begin on", "from its first data on"],
)
def test_places_in_a_session_that_a_filter_splits(
    netns: Netns, tmp_path: Path, turns: tuple[str, ...]
) -> None:
    shakes, *talks = turns
    command = [sys.executable, "-c", TALK, *certificate(tmp_path), *turns]
    chosen = ("--tls", "--netns", netns.path, "--comm", "chosen", "--payload", "100")
    with (
        capturing(netns, "lo", tmp_path / "pcap", "127.0.0.1"),
        tracing(tmp_path / "out", *chosen) as tracer,
    ):
        subprocess.run(netns.command(*command), check=True)
    wire = records_on_the_wire(tmp_path / "pcap")
    for kind in ("tls_send", "tls_recv"):
        events = [event for event in plaintext(tracer.events) if event["kind"] == kind]
        numbers = [int(base64.b64decode(event["payload"]).split()[1]) for event in events]
        expected = [number for number, who in enumerate(talks) if who == "chosen"]
        # Before it has sent anything, this session has no socket, and so no network namespace.
        unplaced = kind == "tls_send" and shakes == "another"
        assert numbers == expected[unplaced:]
        ports = (events[0]["local_port"], events[0]["remote_port"])
        ends = wire[ports if kind == "tls_send" else ports[::-1]].ends
        records = [(begin, end - begin) for begin, (end, _) in ends.items()][-len(talks) :]
        for number, event in zip(numbers, events, strict=True):
            assert (event["seq"], event["encrypted_bytes"]) == records[number]
            others = [records[at][1] for at in range(number) if talks[at] == "another"]
            assert event["missed_bytes"] == (sum(others) if shakes == "chosen" else None)
