"""Recording less: what the kernel leaves out is counted, and what is left stands for it."""

from __future__ import annotations

import os
import shutil
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

import tcprism
from tcprism.events import Batch, Part
from tcprism.events.columns import BY_NAME
from tcprism.events.ledger import Entry
from tcprism.filters import Criteria
from tcprism.sources.effort import Effort
from tcprism.sources.request import Request
from tcprism.sources.tracing import Tracing
from tcprism.stages.sampling import is_sampled
from tests.support.conversation import await_acknowledged
from tests.support.netns import Netns
from tests.support.nginx import nginx
from tests.support.serving import serving
from tests.support.tracer import parse_ledger

from .ways import await_true

CONNECTIONS, MESSAGES, SIZE = 64, 5, 600
SAMPLING = 2


@contextmanager
def _tracing(netns: Netns, *kinds: str) -> Iterator[Tracing]:
    chosen = Criteria(netns=(netns.inode,))
    request = Request(kinds, filter=chosen, payload=1024, ring_size=1 << 20, include_self=True)
    with Tracing(request) as tracing:
        tracing.prepare_efforts()
        yield tracing


def _talk(netns: Netns) -> None:
    """Have some clients send messages, each in one call, and a server read all of them."""
    with closing(netns.socket()) as listener:
        listener.bind(("127.0.0.1", 7000))
        listener.listen(CONNECTIONS)
        for _ in range(CONNECTIONS):
            with closing(netns.socket()) as client:
                client.connect(("127.0.0.1", 7000))
                server, _ = listener.accept()
                with closing(server):
                    for _ in range(MESSAGES):
                        client.sendall(b"x" * SIZE)
                        server.recv(SIZE, socket.MSG_WAITALL)


def _all(tracing: Tracing) -> list[Part]:
    tracing.stop()
    parts: list[Part] = []
    while len(batch := tracing.drain()):
        parts += batch.parts
    return parts


def _entry(tracing: Tracing, kind: str) -> Entry:
    return next(entry for entry in tracing.ledger().entries if entry.kind == kind)


def _ends(part: Part, index: int) -> frozenset[bytes]:
    row = part.rows[index]
    return frozenset(
        row[f"{side}_ip"].tobytes() + row[f"{side}_port"].tobytes() for side in ("local", "remote")
    )


def test_a_sample_has_whole_connections_and_the_rest_is_counted(netns: Netns) -> None:
    with _tracing(netns, "send", "recv") as tracing:
        tracing.take(Effort(message_sampling=SAMPLING))
        _talk(netns)
        parts = _all(tracing)
        for kind in ("send", "recv"):
            entry = _entry(tracing, kind)
            assert entry.balances()
            assert entry.sampled_out + entry.submitted == CONNECTIONS * MESSAGES
            assert entry.lost == 0
            assert entry.absent == entry.sampled_out > 0
    seen: Counter[frozenset[bytes]] = Counter()
    for part in parts:
        assert set(BY_NAME["weight"].to_list(part)) == {2**SAMPLING}
        seen.update(_ends(part, index) for index in range(len(part)))
    assert set(seen.values()) == {2 * MESSAGES}  # both ends
    for one, other in seen:
        assert is_sampled(one, other, SAMPLING)
    assert 2 <= len(seen) <= CONNECTIONS // 2  # a quarter of 64: 16, and not by chance


def test_payload_becomes_shorter(netns: Netns) -> None:
    with _tracing(netns, "send") as tracing:
        tracing.take(Effort(payload_shift=2))
        _talk(netns)
        parts = _all(tracing)
        cut = _entry(tracing, "send").payload_cut
    assert {int(n) for part in parts for n in part.payload_lengths()} == {256}
    assert cut == CONNECTIONS * MESSAGES * (SIZE - 256)


@pytest.mark.native  # elsewhere a hook does not see all that OutSegs counts
def test_segments_are_left_out(netns: Netns) -> None:
    with _tracing(netns, "transmit") as tracing:
        tracing.take(Effort(segment_sampling=32))
        before = netns.tcp_counters()["OutSegs"]
        _talk(netns)
        netns.await_closed()  # the last segments of a connection leave when they may
        sent = netns.tcp_counters()["OutSegs"] - before
        assert not _all(tracing)
        entry = _entry(tracing, "transmit")
        assert entry.balances()
        assert entry.sampled_out == sent


def test_hooks_that_were_off_go_on_where_they_were(netns: Netns) -> None:
    """What was under way meanwhile has no times, rather than wrong ones."""
    with _tracing(netns, "send", "recv", "acked") as tracing, closing(netns.socket()) as listener:
        listener.bind(("127.0.0.1", 7001))
        listener.listen()
        client = netns.socket()
        client.connect(("127.0.0.1", 7001))
        server, _ = listener.accept()
        with closing(client), closing(server):
            tracing.take(Effort(resting=("acked", "send", "recv"), message_sampling=32))
            client.sendall(b"before")
            assert server.recv(100) == b"before"
            client.sendall(b"unread")
            await_acknowledged(client)  # while nobody looks
            tracing.take(Effort())
            assert server.recv(100) == b"unread"
            client.sendall(b"after")
            assert server.recv(100) == b"after"
        netns.await_closed()  # then all is acknowledged
        batch = Batch(_all(tracing))
    events = {(event.kind, event.bytes): event for event in batch}
    assert sorted(events) == [("acked", 5), ("recv", 5), ("recv", 6), ("send", 5)]
    assert events["recv", 6].unread_us is None
    assert events["recv", 5].unread_us is not None
    assert events["acked", 5].unacked_us is not None


@pytest.mark.native
def test_serve_keeps_its_budget_under_a_load(netns: Netns, tmp_path: Path) -> None:
    """What it takes besides does not grow, and what it left out is counted."""
    if not shutil.which("ab"):
        pytest.skip("needs the package apache2-utils")
    place = tmp_path / "recordings"
    options = ("--requests", "--max-overhead", "0.5%", "--record", str(place), "--user", "root")
    load = ("ab", "-q", "-k", "-c", "20", "-n", "2000", "http://127.0.0.1:8080/hello")
    begun = datetime.now(UTC)
    with nginx(netns, tmp_path), serving(*options, "--netns", netns.path) as server:
        descriptors = []
        while not server.sum("tcprism_effort_reduction"):
            netns.run(*load)
            descriptors.append(len(os.listdir(f"/proc/{server.process.pid}/fd")))
        netns.run(*load)
        opened = Path(f"/proc/{server.process.pid}/fd")  # it may be reading one or the other file
        await_true(lambda: len(os.listdir(opened)) <= max(descriptors) + 2)
        assert server.sum("tcprism_budget_usage_ratio") >= 0
        assert server.stop() == 0
    for row in parse_ledger(server.said).values():
        losses = row["ring_full"] + row["ring_busy"] + row["map_full"]
        assert row["seen"] == row["filtered"] + row["sampled_out"] + row["submitted"] + losses
        assert row["received"] == row["submitted"]
    (folder,) = place.iterdir()
    events = list(tcprism.open(folder))
    assert [event.effort for event in events if event.kind == "effort"]
    times = [datetime.fromisoformat(event.time[:26] + "+00:00") for event in events]
    assert begun < min(times) <= max(times) < datetime.now(UTC)
