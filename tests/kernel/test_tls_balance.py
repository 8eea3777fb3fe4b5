"""What of a TLS session's plaintext is missing is said, to the byte; of others nothing is."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tcprism.events import Batch, Event
from tcprism.events.ledger import Ledger
from tcprism.filters import Criteria
from tcprism.pipeline import account
from tcprism.ring import rings
from tcprism.sinks import Sink
from tcprism.sinks.pcapng import Pcapng
from tcprism.sources.request import Request
from tcprism.sources.tracing import Tracing
from tcprism.stages import through
from tests.support.netns import Netns
from tests.support.tls import certificate
from tests.support.tshark import fields

pytestmark = pytest.mark.native

KINDS = ("send", "recv", "tls_send", "tls_recv")
OVERHEAD = 22  # of a record of TLS 1.3: header, type, tag

# Its two ends talk to each other. Each line asks the client to write so many bytes so many times,
# as a thread of a name; the server reads all, each message with one call.
TALK = """
import ctypes, socket, ssl, sys, threading
name_thread = lambda name: ctypes.CDLL(None).prctl(15, name.encode())  # PR_SET_NAME
name_thread("talk")
server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl._create_unverified_context()
server.load_cert_chain(*sys.argv[1:])
listener = socket.create_server(("127.0.0.1", 0))
raw = socket.create_connection(listener.getsockname())
accepted = listener.accept()[0]
ends = []
def accept():
    ends.append(server.wrap_socket(accepted, server_side=True))
thread = threading.Thread(target=accept)
thread.start()
client = client.wrap_socket(raw)
thread.join()
print("talking", flush=True)
for line in sys.stdin:
    name, size, count = line.split()
    name_thread(name)
    for _ in range(int(count)):
        client.send(bytes(int(size)))
        left = int(size)
        while left:
            left -= len(ends[0].recv(left))
    print("done", flush=True)
"""


class Talk:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdin
        assert process.stdout
        self._asks, self._told = process.stdin, process.stdout
        assert self._told.readline() == "talking\n"

    def __call__(self, size: int, count: int = 1, name: str = "talk") -> None:
        self._asks.write(f"{name} {size} {count}\n")
        self._asks.flush()
        assert self._told.readline() == "done\n"


@contextmanager
def talking(netns: Netns, folder: Path) -> Iterator[Talk]:
    command = netns.command(sys.executable, "-c", TALK, *certificate(folder))
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as process:
        yield Talk(process)


def traced(netns: Netns, **more: object) -> Tracing:
    criteria = Criteria(netns=(netns.inode,), **more)  # type: ignore[arg-type]
    return Tracing(Request(KINDS, criteria, payload=64, ring_size=rings.SMALLEST))


def rest(tracing: Tracing, *sinks: Sink) -> tuple[list[Event], Ledger]:
    """Stop; return the plaintext that was seen, and the account."""
    tracing.stop()
    events: list[Event] = []
    while len(batch := tracing.drain()):
        events += plaintext(tracing, batch, *sinks)
    return events, account(tracing, ())


def plaintext(tracing: Tracing, batch: Batch, *sinks: Sink) -> list[Event]:
    """Return the plaintext in a batch; write it to sinks."""
    passed = _passed(tracing, batch)
    for sink in sinks:
        sink.write(passed)
    return [event for event in passed if event.kind in KINDS[2:]]


def _passed(tracing: Tracing, batch: Batch) -> Batch:
    return through(tracing.stages, batch)


def counts(ledger: Ledger) -> dict[str, int]:
    return {name: n for name, n in ledger.counts.items() if name.startswith("tls_") and n}


def test_what_was_seen_from_its_handshake_on_is_whole(netns: Netns, tmp_path: Path) -> None:
    with traced(netns) as tracing:
        with talking(netns, tmp_path) as talk:
            talk(100, 3)
            talk(40_000)
        events, ledger = rest(tracing)
    assert counts(ledger) == {}
    assert not any("TLS" in remark for remark in ledger.remarks)
    assert {event["missed_bytes"] for event in events} == {0}
    for kind in KINDS[2:]:
        here = [event for event in events if event.kind == kind]
        assert [event["stream_offset"] for event in here] == [
            sum(event.bytes for event in here[:index]) for index in range(len(here))
        ]
        assert sum(event.bytes for event in here) == 40_300


def test_a_session_that_had_begun(netns: Netns, tmp_path: Path) -> None:
    with talking(netns, tmp_path) as talk:
        talk(100)
        with traced(netns) as tracing:
            talk(50)
            events, ledger = rest(tracing)
    assert counts(ledger) == {"tls_begun_before": 2}  # at both ends
    assert "2 TLS sessions had begun before tcprism could read them" in ledger.remarks
    assert [(event.bytes, event["missed_bytes"]) for event in events] == [(50, None)] * 2


def test_events_that_were_lost(netns: Netns, tmp_path: Path) -> None:
    """The rings are too small for what is written while nobody reads them.

    A capture of the plaintext has a gap there, behind which the bytes have their own numbers.
    """
    size, count = 1000, 5000
    capture = tmp_path / "plaintext.pcapng"
    with traced(netns) as tracing, talking(netns, tmp_path) as talk, capture.open("wb") as file:
        sink = Pcapng(file, "plaintext")
        talk(size, count)
        found = plaintext(tracing, tracing.read(), sink)
        talk(size)
        events, ledger = rest(tracing, sink)
    missing = 2 * size * (count + 1) - sum(event.bytes for event in found + events)
    assert missing > 0
    assert counts(ledger) == {"tls_plaintext_lost": missing}
    (said,) = [remark for remark in ledger.remarks if "plaintext" in remark]
    assert said.startswith(f"{missing:,} bytes of plaintext are missing, as their events were lost")
    assert f"[{talk.process.pid}], 127.0.0.1:" in said
    *_, (seq, length) = fields(capture, "tcp.seq_raw", "tcp.len")
    assert int(seq) + int(length) == 1 + size * (count + 1)
    assert len(fields(capture, "frame.number", only="tcp.analysis.lost_segment")) == 1


def test_records_that_others_have_moved(netns: Netns, tmp_path: Path) -> None:
    """A filter leaves out a thread that uses the same session."""
    with traced(netns, comms=("talk",)) as tracing, talking(netns, tmp_path) as talk:
        talk(10)
        talk(200, 3, name="other")
        talk(30)
        events, ledger = rest(tracing)
    missed = 3 * (200 + OVERHEAD)
    assert [(event.bytes, event["missed_bytes"]) for event in events] == (
        [(10, 0)] * 2 + [(30, missed)] * 2
    )
    assert counts(ledger) == {"tls_records_missed": 2 * missed}
