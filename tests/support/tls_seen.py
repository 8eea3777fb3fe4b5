"""What tcprism sees of programs that talk TLS, beside what they and tcpdump say."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from . import tls_talk
from .capture import capturing
from .netns import Netns
from .tls import DATA, Records, certificate, records_on_the_wire
from .tracer import Event, tracing

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


def in_short(events: list[Event]) -> str:
    """Return what a failed comparison of payloads needs besides."""
    names = ("ts_ns", "kind", "pid", "tid", "local_port", "remote_port", "session", "bytes",
             "stream_offset", "missed_bytes", "socket_source", "payload_unavailable")  # fmt: skip
    rows = (" ".join(str(event[name]) for name in names) for event in events)
    return "\n".join([" ".join(names), *rows])


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


def see(netns: Netns, folder: Path, ways: Iterable[str]) -> dict[str, Seen]:
    """Return what is seen of a program of each way, by one tracer: it takes seconds to start."""
    files = certificate(folder)
    chosen = ("--tls", "--netns", netns.path, "--payload", str(RECORD))
    with (
        capturing(netns, "lo", folder / "pcap", "127.0.0.1"),
        tracing(folder / "out", *chosen) as tracer,
    ):
        told = {way: talk(netns, way, files) for way in ways}
    wire = records_on_the_wire(folder / "pcap")
    seen: dict[tuple[int, int], list[Event]] = defaultdict(list)
    for event in plaintext(tracer.events):
        seen[event["local_port"], event["remote_port"]].append(event)
    return {
        way: Seen(
            said, wire, [e for ports in dict.fromkeys(key[:2] for key in said) for e in seen[ports]]
        )
        for way, said in told.items()
    }


def check_records(seen: Seen) -> None:
    """Check that each message names the records that carry it, and all that it should."""
    sources = {event["socket_source"] for event in seen.events}
    assert sources == {"ciphertext"} or sources <= {"call", "session"}
    surplus: Counter[tuple[int, int]] = Counter()
    for event in seen.events:
        if event["kind"] == "tls_send":
            count = -(-event["bytes"] // RECORD)
            assert records_of(event, seen.wire) == [DATA] * count
            assert event["encrypted_bytes"] == event["bytes"] + count * OVERHEAD
            continue
        ports = (event["local_port"], event["remote_port"])
        if event["encrypted_bytes"]:
            assert records_of(event, seen.wire) == [DATA]
            surplus[ports] += event["encrypted_bytes"] - OVERHEAD
        surplus[ports] -= event["bytes"]
    assert not any(surplus.values()), surplus
