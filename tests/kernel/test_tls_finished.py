"""Plaintext that is read at once with the end of a handshake, and the records that carry it."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest

from tests.support.capture import capturing
from tests.support.netns import Netns
from tests.support.tls import DATA, certificate, records_on_the_wire
from tests.support.tls_seen import plaintext, records_of
from tests.support.tracer import tracing

pytestmark = pytest.mark.native

WORDS = [b"first\n", b"and second\n"]

# One end has its records in memory, and sends two of data with those that end the handshake.
# The other is on a socket, and reads ahead, as nginx has OpenSSL do. In a session of TLS 1.2, the
# client ends the handshake if it is resumed.
TALK = """
import ctypes, json, socket, ssl, sys, threading
version, early, certificate, key = sys.argv[1:]
WORDS = [b"first\\n", b"and second\\n"]
READ_AHEAD = 41  # SSL_CTRL_SET_READ_AHEAD
lib = ctypes.CDLL("libssl.so.3")
for name in ("TLS_method", "SSL_CTX_new", "SSL_new"):
    getattr(lib, name).restype = ctypes.c_void_p
pointer = ctypes.c_void_p
ahead = pointer(lib.SSL_CTX_new(pointer(lib.TLS_method())))
lib.SSL_CTX_ctrl(ahead, READ_AHEAD, ctypes.c_long(1), None)
memory = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT if early == "client" else ssl.PROTOCOL_TLS_SERVER)
memory.check_hostname, memory.verify_mode = False, ssl.CERT_NONE
memory.minimum_version = memory.maximum_version = ssl.TLSVersion[version]
if early == "client":
    assert lib.SSL_CTX_use_certificate_file(ahead, certificate.encode(), 1) == 1
    assert lib.SSL_CTX_use_PrivateKey_file(ahead, key.encode(), 1) == 1
else:
    memory.load_cert_chain(certificate, key)

def on_socket(raw, told):
    end = pointer(lib.SSL_new(ahead))
    lib.SSL_set_fd(end, raw.fileno())
    assert (lib.SSL_accept if early == "client" else lib.SSL_connect)(end) == 1
    place = ctypes.create_string_buffer(100)
    while sum(told) < sum(map(len, WORDS)):
        told.append(lib.SSL_read(end, place, len(place)))
    lib.SSL_shutdown(end)

def meet(session=None):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        raw = socket.create_connection(listener.getsockname())
        accepted = listener.accept()[0]
    mine, other = (raw, accepted) if early == "client" else (accepted, raw)
    told = []
    thread = threading.Thread(target=on_socket, args=(other, told))
    thread.start()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    end = memory.wrap_bio(incoming, outgoing, server_side=early == "server", session=session)
    while True:
        try:
            end.do_handshake()
            break
        except ssl.SSLWantReadError:
            mine.sendall(outgoing.read())
            incoming.write(mine.recv(65536))
    for word in WORDS:
        end.write(word)
    mine.sendall(outgoing.read())
    thread.join()
    return end, mine.getsockname()[1], told

end, port, told = meet()
if (version, early) == ("TLSv1_2", "client"):
    end, port, told = meet(end.session)
print(json.dumps([end.version(), end.session_reused, port, told]))
"""


@pytest.mark.parametrize(
    ("version", "early"), [("TLSv1_2", "client"), ("TLSv1_2", "server"), ("TLSv1_3", "client")]
)
def test_data_that_comes_with_the_end_of_a_handshake(
    netns: Netns, tmp_path: Path, version: str, early: str
) -> None:
    command = [sys.executable, "-c", TALK, version, early, *certificate(tmp_path)]
    with (
        capturing(netns, "lo", tmp_path / "pcap", "127.0.0.1"),
        tracing(tmp_path / "out", "--tls", "--netns", netns.path, "-v") as tracer,
    ):
        said = subprocess.run(netns.command(*command), check=True, stdout=-1, text=True).stdout
    spoken, reused, port, told = json.loads(said)
    assert (spoken, reused) == (
        version.replace("_", "."),
        (version, early) == ("TLSv1_2", "client"),
    )
    events = [
        event
        for event in plaintext(tracer.events)
        if event["kind"] == "tls_recv" and event["remote_port"] == port
    ]
    assert [event["bytes"] for event in events] == told
    wire = records_on_the_wire(tmp_path / "pcap")
    carried = [records_of(event, wire) for event in events if event["encrypted_bytes"]]
    assert list(chain(*carried)) == [DATA] * len(WORDS)
    assert not any("more than the TLS records can have" in line for line in tracer.stderr)
