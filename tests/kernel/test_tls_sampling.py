"""Requests inside TLS while the sample of connections changes that is recorded, as in `serve`."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tcprism.events import Batch
from tcprism.events.ledger import Account
from tcprism.filters import Criteria
from tcprism.sources.effort import Effort
from tcprism.sources.request import Request
from tcprism.sources.tracing import Tracing
from tcprism.stages import Stage, accounts, close, through, tick
from tcprism.stages.balance import Balance
from tcprism.stages.requests import Requests
from tcprism.stages.sampling import is_sampled
from tests.support.netns import Netns
from tests.support.nginx import nginx
from tests.support.tls import certificate
from tests.support.tracer import PATIENCE

pytestmark = pytest.mark.native

CONNECTIONS, EACH, PORT = 24, 3, 8080
PHASES = (0, 2, 0, 1, 3, 0)  # of 2^n connections one is recorded
KINDS = ("send", "recv", "acked", "tls_send", "tls_recv")
GET = "GET /hello/{} HTTP/1.1\r\nHost: localhost\r\n"


class Recorded:
    """What comes of tracing, through the stages of `serve`."""

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing
        self._stages: list[Stage] = [*tracing.stages, Requests(alone=True)]
        self.events: list[Any] = []
        self._calls = 0

    def sample(self, sampling: int, calls: int) -> None:
        """Record another sample from now on, once so many calls into TLS libraries have come."""
        deadline = time.monotonic() + PATIENCE
        while self._calls < calls:
            assert time.monotonic() < deadline, f"{self._calls} of {calls} calls came"
            self._read()
        self._tracing.take(Effort(message_sampling=sampling))
        for stage in self._stages:
            if isinstance(stage, Balance | Requests):
                stage.sample(sampling)

    def _read(self) -> None:
        batch = self._tracing.read()
        self._calls += sum(len(part) for part in batch.parts if part.family == "tls")
        self._add(through(self._stages, batch))
        self._add(tick(self._stages, self._tracing.now_ns()))

    def finish(self) -> dict[str, int]:
        """Take what is left; return what the stages have counted."""
        self._tracing.stop()
        while len(batch := self._tracing.drain()):
            self._add(through(self._stages, batch))
        self._add(close(self._stages))
        account: Account = accounts(self._stages)
        return dict(account.counts)

    def _add(self, batch: Batch) -> None:
        self.events += [event for event in batch if event.kind == "request"]


@contextmanager
def clients(netns: Netns, authority: str) -> Iterator[list[ssl.SSLSocket]]:
    """Have connections to nginx, inside TLS."""
    context = ssl.create_default_context(cafile=authority)
    with ExitStack() as stack:
        opened = []
        for _ in range(CONNECTIONS):
            plain = stack.enter_context(netns.socket())
            plain.connect(("127.0.0.1", PORT))
            inside = context.wrap_socket(plain, server_hostname="127.0.0.1")
            opened.append(stack.enter_context(inside))
        yield opened


def ask(client: ssl.SSLSocket, phase: int, number: int) -> None:
    """End the request of the phase before, have some, and begin one."""
    if phase:
        client.sendall(b"\r\n")
        answer(client)
    for each in range(EACH):
        client.sendall(GET.format(f"{phase}-{number}-{each}").encode() + b"\r\n")
        answer(client)
    if phase + 1 < len(PHASES):
        client.sendall(GET.format(f"{phase}-{number}-across").encode())


def answer(client: ssl.SSLSocket) -> None:
    said = b""
    while not said.endswith(b"hello"):
        said += client.recv(4096)


def test_what_is_recorded_is_what_nginx_has_logged(netns: Netns, tmp_path: Path) -> None:
    """Each connection has requests in each phase, and one while the next phase begins."""
    files = certificate(tmp_path)
    request = Request(KINDS, filter=Criteria(netns=(netns.inode,)), payload=4096, include_self=True)
    with nginx(netns, tmp_path, tls=files) as log, Tracing(request) as tracing:
        tracing.prepare_efforts()
        recorded = Recorded(tracing)
        with clients(netns, files[0]) as opened:
            ends = [(end(client.getsockname()), end(client.getpeername())) for client in opened]
            calls = 0
            for phase in range(len(PHASES)):
                if phase:
                    recorded.sample(PHASES[phase], calls)
                for number, client in enumerate(opened):
                    ask(client, phase, number)
                    if is_sampled(*ends[number], PHASES[phase]):  # each is seen at both ends
                        calls += 2 * (2 * EACH + 2 * (phase > 0) + 1)
        counts = recorded.finish()
        rows = [line.split('"')[1:] for line in log.read_text().splitlines()]
    logged = {line.split()[1]: tuple(map(int, rest.split()[1:3])) for line, rest in rows}
    whole = {
        event.resource: (event.request_bytes, event.response_bytes)
        for event in recorded.events
        if event.request_state == "complete" and event.protocol == "http"
    }
    expected = set()
    for phase, sampling in enumerate(PHASES):
        for number in range(CONNECTIONS):
            if not is_sampled(*ends[number], sampling):
                continue
            expected |= {f"/hello/{phase}-{number}-{each}" for each in range(EACH)}
            if phase + 1 < len(PHASES) and is_sampled(*ends[number], PHASES[phase + 1]):
                expected.add(f"/hello/{phase}-{number}-across")
    assert whole == {name: logged[name] for name in expected}
    for name in ("tls_plaintext_lost", "tls_records_missed", "tls_unbalanced"):
        assert counts[name] == 0, name  # what was not recorded is not missing


def end(address: tuple[str, int]) -> bytes:
    """Return an end as records have it."""
    ip, port = address
    return bytes(10) + b"\xff\xff" + socket.inet_aton(ip) + port.to_bytes(2, "little")
