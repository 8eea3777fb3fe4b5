"""Requests inside TLS: the parts of their time and what was lost, as without it."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import closing
from pathlib import Path

import pytest

from tests.kernel.test_requests import BUSY, FIRST_PORT, GET, OK, SCENARIOS, SPLIT, WAIT
from tests.support.tls import certificate
from tests.support.tracer import Event, tracing
from tests.support.wire import wired

pytestmark = pytest.mark.native  # the stage is the same everywhere, and so are the events' tests


def secured(
    client: socket.socket, server: socket.socket, files: tuple[str, str]
) -> tuple[ssl.SSLSocket, ssl.SSLSocket]:
    """Return both ends with TLS, their handshake done."""
    asks = ssl.create_default_context()
    asks.check_hostname, asks.verify_mode = False, ssl.CERT_NONE
    responds = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    responds.load_cert_chain(*files)
    responds.num_tickets = 0  # nothing but what the scenario says is on its way
    there = responds.wrap_socket(server, server_side=True, do_handshake_on_connect=False)
    other = threading.Thread(target=there.do_handshake)
    other.start()
    here = asks.wrap_socket(client)
    other.join()
    return here, there


@pytest.fixture(scope="module")
def requests(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Event]:
    """The request of each scenario, seen by both ends."""
    folder: Path = tmp_path_factory.mktemp("requests")
    files = certificate(folder)
    with wired() as wire:
        ends = ("--netns", wire.client.path, "--netns", wire.server.path)
        with tracing(folder / "out", "--tls", *ends, view="requests") as tracer:
            for place, scenario in enumerate(SCENARIOS.values()):
                pair = secured(*wire.connection(4, FIRST_PORT + place), files)
                with closing(pair[0]), closing(pair[1]):
                    scenario.play(wire, *pair)
    events = [event for event in tracer.events if event["protocol"] == "http"]
    assert len(events) == len(SCENARIOS)
    return {list(SCENARIOS)[event["remote_port"] - FIRST_PORT]: event for event in events}


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_time_is_where_it_was_spent(requests: dict[str, Event], name: str) -> None:
    event, part = requests[name], SCENARIOS[name].part
    assert (event["view"], event["request_state"]) == ("both", "complete")
    assert event[part] >= WAIT * 0.6e9  # a probe for a loss comes after 200 ms
    for other in set(SPLIT) - {part}:
        assert (event[other] or 0) < BUSY * 1e9, other
    assert sum(event[each] or 0 for each in SPLIT) == event["request_ns"]


@pytest.mark.parametrize("name", SCENARIOS)
def test_sizes_are_those_of_the_plaintext(requests: dict[str, Event], name: str) -> None:
    assert requests[name]["request_bytes"] == len(GET)
    assert requests[name]["response_bytes"] == len(OK)


def test_a_lost_record_is_what_its_request_waited_for(requests: dict[str, Event]) -> None:
    lost = requests["the request is lost"]
    assert lost["retransmissions"] == 1
    assert lost["retransmission_causes"] in ("tlp", "rto")
    assert 0.1e9 < lost["retransmission_wait_ns"] <= lost["request_ns"]
    others = [event for name, event in requests.items() if "is lost" not in name]
    assert not any(
        event["retransmission_wait_ns"] for event in others if not event["retransmissions"]
    )
