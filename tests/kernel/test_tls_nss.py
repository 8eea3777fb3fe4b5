"""Plaintext of NSS: its own client and server, and calls of NSPR that do no TLS."""

from __future__ import annotations

import base64
import ctypes
import ctypes.util
import subprocess
from collections import defaultdict
from dataclasses import dataclass

import pytest

from tests.support import nss
from tests.support.capture import capturing
from tests.support.netns import Netns, namespace
from tests.support.server import serving
from tests.support.tls import DATA, Records, records_on_the_wire
from tests.support.tls_seen import OVERHEAD, plaintext, records_of
from tests.support.tracer import Event, tracing

pytestmark = pytest.mark.native

OVERHEADS = {"tls1.2": 29, "tls1.3": OVERHEAD}  # of a record: header, nonce or type, tag
VERSIONS = {"file": "tls1.3"}
SERVED = bytes(range(256)) * 200
PLAIN_PORT = 4435
RECORD = b"\x17\x03\x03\x00\x20" + bytes(range(32))  # what a proxy may pass on


@dataclass
class Seen:
    """A session: what the client was told to say and printed, the events, what tcpdump saw."""

    asked: bytes
    answered: bytes
    events: list[Event]
    wire: dict[tuple[int, int], Records]


def pass_on(netns: Netns) -> None:
    """Have NSPR move bytes that look like TLS, without TLS."""
    nspr = ctypes.CDLL(ctypes.util.find_library("nspr4"))
    nspr.PR_ImportTCPSocket.restype = ctypes.c_void_p
    with netns.socket() as listener, netns.socket() as client:
        listener.bind(("127.0.0.1", PLAIN_PORT))
        listener.listen()
        client.connect(("127.0.0.1", PLAIN_PORT))
        server, _ = listener.accept()
        with server:
            there, here = (
                ctypes.c_void_p(nspr.PR_ImportTCPSocket(end.detach())) for end in (server, client)
            )
    buffer = ctypes.create_string_buffer(len(RECORD))
    for writer, reader in ((here, there), (there, here)):
        assert nspr.PR_Write(writer, RECORD, len(RECORD)) == len(RECORD)
        assert nspr.PR_Read(reader, buffer, len(RECORD)) == len(RECORD)
    for end in (here, there):
        nspr.PR_Close(end)


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Seen]:
    folder = tmp_path_factory.mktemp("nss")
    database = nss.database(folder)
    said = {}
    with namespace() as netns, serving(netns, folder / "log", *nss.server(database)):
        with (
            capturing(netns, "lo", folder / "pcap", "127.0.0.1"),
            tracing(folder / "out", "--tls", "--netns", netns.path, "--payload", "4096") as tracer,
        ):
            pass_on(netns)
            (folder / "served").write_bytes(SERVED)
            for name, path in {**dict.fromkeys(OVERHEADS, "/"), "file": folder / "served"}.items():
                asked = f"GET {path} HTTP/1.0\r\n\r\n".encode()
                (folder / "asked").write_bytes(asked)
                command = netns.command(*nss.client(database, VERSIONS.get(name, name)))
                with (folder / "asked").open() as file:
                    done = subprocess.run(command, stdin=file, check=True, capture_output=True)
                said[name] = asked, done.stdout
        wire = records_on_the_wire(folder / "pcap")
    events = defaultdict(list)
    for event in tracer.events:
        if event["kind"].startswith("tls_") or PLAIN_PORT in (
            event["local_port"],
            event["remote_port"],
        ):
            ports = {event["local_port"], event["remote_port"]} - {nss.PORT}
            events[PLAIN_PORT if PLAIN_PORT in ports else ports.pop()].append(event)
    plain = events.pop(PLAIN_PORT)
    assert len(events) == len(said)
    seen = {
        name: Seen(*said[name], found, wire)
        for name, found in zip(said, events.values(), strict=True)
    }
    return {**seen, "plain": Seen(b"", b"", plain, wire)}


def written(events: list[Event], kind: str, *, at_server: bool) -> bytes:
    return b"".join(
        base64.b64decode(event["payload"])
        for event in events
        if event["kind"] == kind and (event["local_port"] == nss.PORT) == at_server
    )


@pytest.mark.parametrize("version", OVERHEADS)
def test_what_both_have_said(sessions: dict[str, Seen], version: str) -> None:
    seen = sessions[version]
    assert seen.asked in seen.answered  # the server repeats it
    assert written(seen.events, "tls_send", at_server=False) == seen.asked
    assert written(seen.events, "tls_recv", at_server=True) == seen.asked
    assert written(seen.events, "tls_recv", at_server=False) == seen.answered
    (answer,) = (
        event
        for event in seen.events
        if event["kind"] == "tls_send" and event["local_port"] == nss.PORT
    )
    assert answer["bytes"] == len(seen.answered)
    # It comes from several buffers, of which the first is read.
    assert seen.answered.startswith(base64.b64decode(answer["payload"]))


@pytest.mark.parametrize("version", OVERHEADS)
def test_the_records_that_carry_it(sessions: dict[str, Seen], version: str) -> None:
    for event in sessions[version].events:
        assert event["socket_source"] == "call"
        assert records_of(event, sessions[version].wire) == [DATA]
        assert event["encrypted_bytes"] == event["bytes"] + OVERHEADS[version]


def test_a_file_that_nspr_transmits(sessions: dict[str, Seen]) -> None:
    """PR_TransmitFile() writes what it reads with PR_Writev() and PR_Send(), which are seen."""
    seen = sessions["file"]
    assert seen.answered.endswith(SERVED)
    assert written(seen.events, "tls_recv", at_server=False) == seen.answered
    moved: dict[str, int] = defaultdict(int)
    for event in seen.events:
        if (event["kind"] == "tls_send") == (event["local_port"] == nss.PORT):
            moved[event["kind"]] += event["bytes"]
            moved[f"{event['kind']} encrypted"] += event["encrypted_bytes"]
            assert event["missed_bytes"] == 0
    assert moved["tls_send"] == moved["tls_recv"] == len(seen.answered)
    assert moved["tls_send encrypted"] == moved["tls_recv encrypted"] > len(seen.answered)


def test_what_is_no_session_is_no_plaintext(sessions: dict[str, Seen]) -> None:
    kinds = [event["kind"] for event in sessions["plain"].events]
    assert (kinds.count("send"), kinds.count("recv")) == (2, 2)
    assert not plaintext(sessions["plain"].events)
