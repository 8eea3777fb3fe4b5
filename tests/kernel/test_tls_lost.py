"""Requests inside TLS whose plaintext was lost: said to be so, and those behind are exact again.

Nobody reads the rings for a while, which are small, so that events of many exchanges are lost.
"""

from __future__ import annotations

import json
import signal
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.test_tls_times import HOW, secured
from tests.support.capture import capturing
from tests.support.netns import Netns, namespace
from tests.support.tls import DATA, Records, certificate, records_on_the_wire
from tests.support.tracer import PATIENCE, Event, Tracer, tracing

pytestmark = pytest.mark.native

FEW, MANY = 5, 1500
FIRST_PORT = 4433


@dataclass
class Exchange:
    """One that the client has made: how many bytes that took, and when it was over."""

    request: int
    response: int
    begun_ns: int
    ended_ns: int


@dataclass
class Talk:
    """A connection, and all that has been said on it."""

    client: Any
    server: Any
    said: list[Exchange] = field(default_factory=list)

    def exchange(self) -> None:
        """Ask for what nobody has asked for, and be sent an answer that no other is as long as."""
        number = len(self.said)
        request = b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number
        response = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % number + bytes(number)
        begun_ns = time.monotonic_ns()
        self.client.sendall(request)
        assert self.server.recv(1000) == request
        self.server.sendall(response)
        left = len(response)
        while left:
            left -= len(self.client.recv(left))
        self.said.append(Exchange(len(request), len(response), begun_ns, time.monotonic_ns()))


@dataclass
class Seen:
    """What was said on one connection, and what was seen of it."""

    said: list[Exchange]
    after: int  # the first exchange behind the gap
    events: dict[int, Event]
    wire: Records


@dataclass
class Run:
    by_how: dict[str, Seen]
    tracer: Tracer


def shown(tracer: Tracer, port: int, number: int, seconds: float) -> bool:
    """Wait until a request is shown as complete, at most so long."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for line in tracer.output.read_text().splitlines():
            if f'/{number}"' in line and line.endswith("}"):
                event = json.loads(line)
                if event["remote_port"] == port:
                    return bool(event["request_state"] == "complete")
        time.sleep(0.02)
    return False


def connect(netns: Netns, port: int) -> tuple[Any, Any]:
    client, listener = netns.socket(), netns.socket()
    with closing(listener):
        listener.bind(("127.0.0.1", port))
        listener.listen()
        client.connect(("127.0.0.1", port))
        return client, listener.accept()[0]


def overrun(tracer: Tracer, talk: Talk, port: int) -> int:
    """Exchange more than the rings hold, until all is shown again; return from where on."""
    for _ in range(FEW):
        talk.exchange()
    tracer.process.send_signal(signal.SIGSTOP)
    for _ in range(MANY):
        talk.exchange()
    tracer.process.send_signal(signal.SIGCONT)
    deadline = time.monotonic() + PATIENCE
    while True:
        assert time.monotonic() < deadline
        talk.exchange()
        if shown(tracer, port, len(talk.said) - 1, 0.2):
            break
    after = len(talk.said)
    for number in range(after, after + FEW):
        talk.exchange()
        assert shown(tracer, port, number, PATIENCE)
    return after


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder: Path = tmp_path_factory.mktemp("lost")
    files = certificate(folder)
    said: dict[str, tuple[list[Exchange], int]] = {}
    with namespace() as netns:
        chosen = ("--tls", "--netns", netns.path, "--ring-size", "64K")
        with (
            capturing(netns, "lo", folder / "pcap", "127.0.0.1"),
            tracing(folder / "out", *chosen, view="requests") as tracer,
        ):
            for port, how in enumerate(HOW, FIRST_PORT):
                pair = secured(*connect(netns, port), files, how)
                with closing(pair[0]), closing(pair[1]):
                    talk = Talk(*pair)
                    after = overrun(tracer, talk, port)
                said[how] = talk.said, after
        wire = records_on_the_wire(folder / "pcap")
    events = [event for event in tracer.events if event["protocol"] == "http"]
    by_how = {}
    for port, (how, (exchanges, after)) in enumerate(said.items(), FIRST_PORT):
        here = [event for event in events if event["remote_port"] == port]
        (records,) = [each for (_, to), each in wire.items() if to == port]
        of_requests = {int(e["resource"][1:]): e for e in here if e["resource"]}
        assert len(of_requests) == len([e for e in here if e["resource"]])
        by_how[how] = Seen(exchanges, after, of_requests, records)
    return Run(by_how, tracer)


def is_right(seen: Seen, number: int) -> None:
    """Check what is told of a request whose every event was seen."""
    event, said = seen.events[number], seen.said[number]
    assert event["request_bytes"] == said.request
    assert event["response_bytes"] == said.response
    assert said.begun_ns <= event["start_ts_ns"] <= said.ended_ns
    if event["request_ns"] is not None:  # else the calls into TCP were lost
        assert event["start_ts_ns"] + event["request_ns"] <= said.ended_ns
    begins = [at for at, (_, kind) in seen.wire.ends.items() if kind == DATA]
    assert event["request_seq"] == begins[number - len(seen.said)]


@pytest.mark.parametrize("how", HOW)
def test_requests_before_and_behind_the_gap_are_exact(run: Run, how: str) -> None:
    seen = run.by_how[how]
    for number in (*range(FEW), *range(seen.after, len(seen.said))):
        assert seen.events[number]["request_state"] == "complete"
        assert seen.events[number]["request_ns"] is not None
        is_right(seen, number)


@pytest.mark.parametrize("how", HOW)
def test_what_was_lost_is_not_shown_as_whole(run: Run, how: str) -> None:
    seen = run.by_how[how]
    complete = [n for n, event in seen.events.items() if event["request_state"] == "complete"]
    for number in complete:
        is_right(seen, number)
    assert len(complete) < len(seen.said)


def test_the_ledger_says_to_the_byte_what_is_missing(run: Run) -> None:
    ledger = [run.tracer.ledger[kind] for kind in ("tls_send", "tls_recv")]
    assert sum(each["ring_full"] for each in ledger) > 0
    exchanges = [one for seen in run.by_how.values() for one in seen.said]
    said = sum(one.request + one.response for one in exchanges)  # at both ends
    missing = 2 * said - sum(each["bytes"] for each in ledger)
    told = f"{missing:,} bytes of plaintext are missing, as their events were lost"
    assert any(line.startswith(told) for line in run.tracer.stderr)
