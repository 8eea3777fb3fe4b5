"""Plaintext of TLS: what programs wrote and read, on their sockets, in the records on the wire."""

import base64
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.support import tls_talk
from tests.support.capture import capturing
from tests.support.netns import Netns, namespace
from tests.support.tls import DATA, Records, certificate, records_on_the_wire
from tests.support.tracer import Event, tracing

pytestmark = pytest.mark.native

OVERHEAD = 22  # of a record of TLS 1.3: header, type, tag
RECORD = 1 << 14

Told = dict[tuple[int, int, str], list[bytes]]  # by local port, remote port and kind


@dataclass
class Seen:
    """What was seen of one program: by itself, by tcpdump, by tcprism."""

    told: Told
    wire: dict[tuple[int, int], Records]
    events: list[Event]


def plaintext(events: list[Event]) -> list[Event]:
    return [event for event in events if event["kind"].startswith("tls_")]


def payloads(events: list[Event]) -> Told:
    """Return what events say was moved."""
    found: Told = defaultdict(list)
    for event in events:
        payload = base64.b64decode(event["payload"])
        assert len(payload) == min(event["bytes"], RECORD)
        found[event["local_port"], event["remote_port"], event["kind"]].append(payload)
    return found


def records_of(event: Event, wire: dict[tuple[int, int], Records]) -> list[int]:
    """Return the types of the records that an event says carry it."""
    ports = (event["local_port"], event["remote_port"])
    sender = ports if event["kind"] == "tls_send" else ports[::-1]
    return wire[sender].between(event["seq"], event["encrypted_bytes"])


def talk(netns: Netns, way: str, files: tuple[str, str]) -> Told:
    """Run a program that talks in a way; return what it says it has written and read."""
    command = netns.command(sys.executable, tls_talk.__file__, way, *files)
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    told: Told = defaultdict(list)
    for line in done.stdout.splitlines():
        local, remote, kind, data = json.loads(line)
        told[local, remote, kind].append(bytes.fromhex(data)[:RECORD])
    return told


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Seen]]:
    """What was seen of one program of each way, by one tracer: it takes seconds to start."""
    folder = tmp_path_factory.mktemp("programs")
    files = certificate(folder)
    with namespace() as netns:
        chosen = ("--tls", "--netns", netns.path, "--payload", str(RECORD))
        with (
            capturing(netns, "lo", folder / "pcap", "127.0.0.1"),
            tracing(folder / "out", *chosen) as tracer,
        ):
            told = {way: talk(netns, way, files) for way in tls_talk.WAYS}
        events = plaintext(tracer.events)
        wire = records_on_the_wire(folder / "pcap")
        yield {
            way: Seen(said, wire, [e for e in events if (e["local_port"], e["remote_port"]) in
                                   {(local, remote) for local, remote, _ in said}])
            for way, said in told.items()
        }  # fmt: skip


@pytest.mark.parametrize("way", tls_talk.WAYS)
def test_what_a_program_wrote_and_read(programs: dict[str, Seen], way: str) -> None:
    assert payloads(programs[way].events) == programs[way].told


@pytest.mark.parametrize("way", [way for way in tls_talk.WAYS if way != "in_memory"])
def test_the_records_that_carry_it(programs: dict[str, Seen], way: str) -> None:
    seen = programs[way]
    assert {event["socket_source"] for event in seen.events} <= {"call", "session"}
    for event in seen.events:
        if event["kind"] == "tls_send":
            count = -(-event["bytes"] // RECORD)
            assert records_of(event, seen.wire) == [DATA] * count
            assert event["encrypted_bytes"] == event["bytes"] + count * OVERHEAD
        elif event["encrypted_bytes"]:
            assert set(records_of(event, seen.wire)) == {DATA}


def test_a_session_in_memory_has_its_socket(programs: dict[str, Seen]) -> None:
    events = programs["in_memory"].events
    assert {event["socket_source"] for event in events} == {"ciphertext"}
    assert {event["seq"] for event in events} == {None}
