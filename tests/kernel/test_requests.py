"""Requests: each part of their time, made long on purpose; exact counts against a server's own log.

The truth: what the test's ends did and how long they waited, what the wire lost or held back.
"""

import os
import shutil
import socket
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from statistics import median

import pytest

import tcprism
from tcprism.events._wire import LANES_TRIED
from tcprism.events.requests import NEEDS
from tcprism.filters import Criteria
from tcprism.ring import rings
from tcprism.sources.request import Request
from tcprism.sources.tracing import Tracing
from tcprism.stages import requests as stages
from tests.kernel.slow_requests import (
    FIRST_PORT,
    GET,
    OK,
    SCENARIOS,
    SPLIT,
    Took,
    check_lost,
    check_parts,
    play,
)
from tests.support.conversation import connected, receive
from tests.support.netns import Netns
from tests.support.nginx import nginx
from tests.support.tracer import Event, tracing
from tests.support.wire import lose_data, wired

pytestmark = pytest.mark.native  # the stage is the same everywhere, and so are the events' tests

NGINX_NS = 1_000_000  # what nginx' log can be off
Requests = dict[str, dict[str, Event]]
Played = dict[str, dict[str, Took]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Requests, Played]:
    """Of each scenario the request seen by both ends, by the client and by the server alone."""
    found: Requests = {name: {} for name in SCENARIOS}
    took: Played = {name: {} for name in SCENARIOS}
    with wired() as wire:
        filters = {
            "both": ("--netns", wire.client.path, "--netns", wire.server.path),
            "client": ("--netns", wire.client.path),
            "server": ("--netns", wire.server.path),
        }
        wire.send_again_late(wire.server)  # what the client sends again is counted
        folder = tmp_path_factory.mktemp("requests")
        for view, arguments in filters.items():
            with tracing(folder / view, *arguments, view="requests") as tracer:
                for place, (name, scenario) in enumerate(SCENARIOS.items()):
                    client, server = wire.connection(4, FIRST_PORT + place)
                    with closing(client), closing(server):
                        took[name][view] = play(scenario, wire, client, server)
            for event in tracer.events:
                name = list(SCENARIOS)[event["remote_port"] - FIRST_PORT]
                assert view not in found[name], "one request is one event"
                found[name][view] = event
    return found, took


@pytest.fixture(scope="module")
def requests(run: tuple[Requests, Played]) -> Requests:
    return run[0]


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_time_is_where_it_was_spent(run: tuple[Requests, Played], name: str) -> None:
    requests, took = run
    check_parts(requests[name]["both"], took[name]["both"], name)


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("view", ["client", "server"])
def test_one_end_knows_the_whole_and_its_own_parts(
    requests: Requests, name: str, view: str
) -> None:
    event = requests[name][view]
    assert event["view"] == view
    assert sum(event[each] or 0 for each in SPLIT) == event["request_ns"]
    unknown = {
        "client": ("network_there_ns", "server_queue_ns", "network_back_ns"),
        "server": ("send_queue_ns", "network_there_ns", "network_back_ns", "unread_ns"),
    }
    assert [event[each] for each in unknown[view]] == [None] * len(unknown[view])
    assert event["server_source"] == view


@pytest.mark.parametrize("view", ["both", "client"])
def test_a_lost_segment_is_what_the_request_waited_for(
    run: tuple[Requests, Played], view: str
) -> None:
    requests, took = run
    name = "the request is lost"
    check_lost(requests[name][view], took[name][view])
    others = [found[view] for name, found in requests.items() if "is lost" not in name]
    assert not any(
        event["retransmission_wait_ns"] for event in others if not event["retransmissions"]
    )


FAR = 0.1  # seconds, each way: duplicate ACKs come long before any timer, on a busy machine, too
UPLOAD = b"POST /cart HTTP/1.1\r\nHost: shop\r\nContent-Length: 30000\r\n\r\n" + b"b" * 30_000


def test_a_fast_retransmission_is_what_the_request_waited_for(tmp_path: Path) -> None:
    lose = lose_data(0)
    with wired() as wire:
        wire.send_again_late()  # no timer and no probe before the ACKs
        wire.rule = lambda packet, to_server: None if lose(packet, to_server) is None else FAR
        filters = ("--netns", wire.client.path, "--netns", wire.server.path)
        with tracing(tmp_path / "out", *filters, view="requests") as tracer:
            client, server = wire.connection(4, FIRST_PORT)
            with closing(client), closing(server):
                client.sendall(UPLOAD)
                receive(server, len(UPLOAD))
                server.sendall(OK)
                receive(client, len(OK))
        (event,) = tracer.events
    assert (event["retransmissions"], event["retransmission_causes"]) == (1, "fast")
    assert FAR * 1e9 < event["retransmission_wait_ns"] <= event["request_ns"]
    # The loss shows after a round trip; the segment, and the response, take half of one each.
    assert event["request_ns"] >= 4 * FAR * 1e9


@pytest.mark.parametrize("view", ["both", "client", "server"])
def test_what_was_asked_and_answered(requests: Requests, view: str) -> None:
    for found in requests.values():
        event = found[view]
        assert (event["protocol"], event["method"], event["resource"]) == (
            "http",
            "GET",
            "/cart/7?",
        )
        assert event["http.response.status_code"] == 200
        assert (event["request_bytes"], event["response_bytes"]) == (len(GET), len(OK))
        assert event["request_state"] == "complete"


@pytest.mark.parametrize("view", ["both", "client"])
def test_as_many_requests_as_nginx_has_logged(netns: Netns, tmp_path: Path, view: str) -> None:
    address = "http://127.0.0.1:8080"
    if not shutil.which("ab"):
        pytest.skip("needs the package apache2-utils")
    with nginx(netns, tmp_path) as log:
        chosen = ("--netns", netns.path, *(("--comm", "ab") if view == "client" else ()))
        with tracing(tmp_path / "out", *chosen, view="requests") as tracer:
            netns.run("ab", "-q", "-n", "3000", "-k", "-c", "40", f"{address}/hello")
            netns.run("ab", "-q", "-n", "300", "-c", "10", f"{address}/hello")
            netns.run("ab", "-q", "-n", "50", "-k", "-c", "5", f"{address}/broken")
    logged = Counter(line.split('"')[2].split()[0] for line in log.read_text().splitlines())
    assert logged == {"200": 3300, "503": 50}
    events = tracer.events
    assert Counter(event["status"] for event in events) == logged
    assert {(event["request_state"], event["view"]) for event in events} == {("complete", view)}
    assert sum(event["failed"] for event in events) == 50


def test_a_burst_that_comes_faster_than_it_is_read_is_shown_whole(netns: Netns) -> None:
    """Each turn fills three quarters of what one CPU may fill; a read hands over less of 4 MB."""
    request = Request(
        NEEDS, Criteria(netns=(netns.inode,)), payload=64, ring_size=4 << 20, include_self=True
    )
    sizes = rings.sizes(request.kinds, request.payload, request.ring_size)
    layout = rings.layouts(sizes, os.cpu_count() or 1)["message_64"]
    room = layout.slots * min(layout.lanes, LANES_TRIED)
    turns, in_a_turn, found = 5, room * 3 // 4 // 4, 0
    stage = stages.Requests(alone=True)
    with Tracing(request) as tracing, connected(netns) as (client, server):
        for _ in range(turns):
            for _ in range(in_a_turn):
                client.sendall(GET)
                receive(server, len(GET))
                server.sendall(OK)
                receive(client, len(OK))
            found += len(stage(tracing.read()))
        tracing.stop()
        while len(batch := tracing.drain()):
            found += len(stage(batch))
        lost = {entry.kind: entry.ring_full for entry in tracing.ledger().entries}
    assert set(lost.values()) == {0}
    assert found + len(stage.close()) == turns * in_a_turn


def test_in_python(netns: Netns) -> None:
    """What a program of a user's own gets of this machine, as it happens."""
    filters = tcprism.Filter(netns=netns.path)
    monitor = tcprism.requests(filters=filters)
    assert isinstance(monitor, tcprism.Monitor)
    with monitor, connected(netns) as (client, server):
        pid = os.fork()  # the monitor leaves its own process out
        if not pid:
            with suppress(BaseException):
                for _ in range(3):
                    client.sendall(GET)
                    receive(server, len(GET))
                    server.sendall(OK)
                    receive(client, len(OK))
            os._exit(0)
        os.waitpid(pid, 0)
        found = []
        for event in monitor:  # as they happen
            found.append(event)
            if len(found) == 3:
                monitor.stop()
    assert [(one.kind, one.method, one.status) for one in found] == 3 * [("request", "GET", "200")]
    assert {(one.pid, one.request_bytes, one.response_bytes) for one in found} == {
        (pid, len(GET), len(OK))
    }
    assert {one.resource for one in found} == {"/cart/7?"}


def sell(shop: socket.socket, delays_ms: Sequence[int]) -> None:
    """Respond to a request a connection, each after its delay."""
    for delay_ms in delays_ms:
        connection, _ = shop.accept()
        with connection:
            connection.settimeout(60)
            while not connection.recv(65_536).endswith(b"\r\n\r\n"):
                pass
            time.sleep(delay_ms / 1000)
            connection.sendall(OK)


def test_times_are_those_that_nginx_has_logged(netns: Netns, tmp_path: Path) -> None:
    """It counts whole milliseconds, of its clock, which it reads once for all that it does then."""
    delays_ms = [number % 20 for number in range(100)]
    with (
        nginx(netns, tmp_path) as log,
        netns.socket() as shop,
        tracing(tmp_path / "out", "--netns", netns.path, view="requests") as tracer,
        ThreadPoolExecutor(1) as pool,
    ):
        shop.bind(("127.0.0.1", 8081))
        shop.listen()
        sold = pool.submit(sell, shop, delays_ms)
        with netns.socket() as client:
            client.connect(("127.0.0.1", 8080))
            for number in range(len(delays_ms)):
                client.sendall(b"GET /shop/%d HTTP/1.1\r\nHost: shop\r\n\r\n" % number)
                answer = b""
                while not answer.endswith(b"hello"):
                    answer += client.recv(65_536)
        sold.result()
    logged = [line.split()[-2:] for line in log.read_text().splitlines()]
    asked = {
        port: [event for event in tracer.events if event["remote_port"] == port]
        for port in (8080, 8081)
    }
    for port, place in ((8080, 0), (8081, 1)):
        events = sorted(asked[port], key=lambda event: event["start_ts_ns"])
        assert [event["resource"] for event in events] == [
            f"/shop/{number}" for number in range(len(delays_ms))
        ]
        off = [
            abs(event["request_ns"] - round(float(times[place]) * 1e9))
            for event, times in zip(events, logged, strict=True)
        ]
        assert median(off) < NGINX_NS
