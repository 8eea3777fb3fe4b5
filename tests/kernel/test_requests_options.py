"""`tcprism requests`: what its options choose of requests, and how they are shown.

The truth: what the test's ends asked and answered, and how long they waited.
"""

import csv
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from tests.support.conversation import receive
from tests.support.netns import Netns, namespace
from tests.support.tracer import Event, Tracer, tracing_all

pytestmark = pytest.mark.native  # the stage is the same everywhere, and so are the events' tests

WAIT = 0.8  # seconds
SLOW = 0.5  # seconds: what takes longer is shown with --slower
ASKED = (
    ("GET", "/cart/7?token=secret", "200 OK", 0),
    ("GET", "/cart/8?token=secret", "200 OK", WAIT),
    ("POST", "/orders", "503 Service Unavailable", 0),
    ("GET", "/never", "", 0),
)
OPTIONS = {
    "slower": ("--slower", f"{SLOW}s"),
    "where": ("--where", "method = 'GET' and http_response_status_code = 200"),
    "pending": ("--pending", "--protocol", "http,redis"),
    "values": ("--show-values", "--format", "csv"),
    "summary": ("--summary", "--by", "status", "--status", "404,5xx,error"),
}


@dataclass
class Run:
    """What a tracer with each of the options has written of the same requests.

    And how many seconds each has taken at most, by its resource.
    """

    tracers: dict[str, Tracer]
    took: dict[str, float]


def ask(stack: ExitStack, netns: Netns, listener: socket.socket) -> dict[str, float]:
    """Ask each, on a connection of its own, which stays open; return what each took."""
    took = {}
    for method, path, status, wait in ASKED:
        client = stack.enter_context(netns.socket())
        client.connect(listener.getsockname())
        server = stack.enter_context(listener.accept()[0])
        request = f"{method} {path} HTTP/1.1\r\nHost: shop\r\n\r\n".encode()
        began = time.monotonic()
        client.sendall(request)
        receive(server, len(request))
        time.sleep(wait)
        if status:
            response = f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode()
            server.sendall(response)
            receive(client, len(response))
        took[path.replace("?token=secret", "?")] = time.monotonic() - began
    return took


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("requests")
    with namespace() as netns, ExitStack() as stack, netns.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        chosen = ["--netns", netns.path, "--ring-size", "1M"]
        runs = {folder / name: [*chosen, *options] for name, options in OPTIONS.items()}
        with tracing_all(runs, view="requests") as started:
            took = ask(stack, netns, listener)
        yield Run(dict(zip(OPTIONS, started, strict=True)), took)


@pytest.fixture
def tracers(run: Run) -> dict[str, Tracer]:
    return run.tracers


def resources(events: list[Event]) -> list[str]:
    return sorted(event["resource"] for event in events)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("where", ["/cart/7?", "/cart/8?"]),
        ("pending", ["/cart/7?", "/cart/8?", "/never", "/orders"]),
    ],
)
def test_which_are_shown(tracers: dict[str, Tracer], options: str, expected: list[str]) -> None:
    assert resources(tracers[options].events) == expected


def test_slow_ones_alone(run: Run) -> None:
    """On a machine that stalls, a request for which nobody waits may be slow, too."""
    shown = resources(run.tracers["slower"].events)
    assert "/cart/8?" in shown
    assert "/never" not in shown
    assert [name for name in shown if run.took[name] < SLOW] == []


def test_a_request_without_a_response_says_how_old_it_is_and_where(
    tracers: dict[str, Tracer],
) -> None:
    (never,) = (one for one in tracers["pending"].events if one["request_state"] == "pending")
    assert (never["resource"], never["waiting_for"]) == ("/never", "response")
    assert never["request_ns"] > 0


def test_values_on_demand_as_csv(tracers: dict[str, Tracer]) -> None:
    with tracers["values"].output.open(newline="") as file:
        rows = list(csv.DictReader(file))
    shown = sorted((row["method"], row["resource"], row["status"]) for row in rows)
    assert shown == sorted(
        (method, path, status.split()[0]) for method, path, status, _ in ASKED if status
    )


def test_a_summary(tracers: dict[str, Tracer]) -> None:
    title, line = tracers["summary"].output.read_text().splitlines()
    assert title.split()[:2] == ["count", "failed"]
    assert line.split()[:2] == ["1", "1"]
    assert line.endswith("http 503")
