"""Rings are cut into lanes: many write at once, and one CPU fills more than its own."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from numpy.typing import NDArray

from tcprism.events import Batch, Part
from tcprism.events._wire import LANES_TRIED
from tcprism.filters import Criteria
from tcprism.ring import rings
from tcprism.sources.request import Request
from tcprism.sources.tracing import Tracing
from tests.support import hooks, workload
from tests.support.conversation import connected
from tests.support.netns import PATIENCE, Netns

CALLS = 5_000
CPUS = os.cpu_count() or 1
PORTS = range(5400, 5400 + 10 * CPUS, 10)


@contextmanager
def on_one_cpu() -> Iterator[None]:
    """Keep this thread on the CPU where it is."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


@pytest.mark.parametrize("hook", hooks.message_hooks())
def test_one_cpu_fills_all_lanes_that_it_may(hook: str, netns: Netns) -> None:
    """The last record finds room, the next is lost."""
    request = Request(
        ("send",),
        Criteria(netns=(netns.inode,)),
        payload=0,
        mechanism=hook,
        ring_size=rings.SMALLEST,
        include_self=True,
    )
    sizes = rings.sizes(request.kinds, request.payload, request.ring_size)
    layout = rings.layouts(sizes, CPUS)["message_0"]
    room = layout.slots * min(layout.lanes, LANES_TRIED)
    with Tracing(request) as monitor, connected(netns) as (client, server), on_one_cpu():

        def send(lengths: range) -> int:
            for length in lengths:
                client.sendall(bytes(length))
                server.recv(length, socket.MSG_WAITALL)
            return monitor.ledger().entries[0].ring_full

        assert send(range(1, room + 1)) == 0
        assert send(range(room + 1, room + 4)) == 3
        monitor.stop()
        lengths: list[int] = []
        while len(batch := monitor.drain()):
            lengths += [event.bytes for event in batch]
        assert all(entry.balances() for entry in monitor.ledger().entries)
    assert sorted(lengths) == list(range(1, room + 1))


def test_every_cpu_writes_at_once(netns: Netns) -> None:
    """Each stream comes whole and in order, whoever else was writing.

    A kernel that preempts a hook misses something: until that goes on, it runs the hook for nobody.
    """
    program = str(workload.build(64))
    request = Request(
        ("send", "recv"), Criteria(netns=(netns.inode,)), payload=0, ring_size=1 << 24
    )
    with Tracing(request) as monitor:
        floods = [
            subprocess.Popen(netns.command(program, "flood", str(port), str(CALLS), "64"))
            for port in PORTS
        ]
        assert [each.wait(PATIENCE) for each in floods] == [0] * len(PORTS)
        monitor.stop()
        parts: list[Part] = []
        while len(batch := monitor.drain()):
            parts += batch.parts
        entries = monitor.ledger().entries
    told = Batch(parts)
    assert set(told["bytes"].tolist()) == {64}
    for entry in entries:
        of_kind = told["kind"] == entry.kind
        assert of_kind.sum() == entry.submitted
        lost = CALLS * len(PORTS) - entry.submitted
        assert 0 <= lost <= entry.missed, entry  # missed at the entry of a call, it is still seen
        for port in PORTS:
            ends = (told["local_port"] == port) | (told["remote_port"] == port)
            known = np.ma.compressed(told["seq"][of_kind & ends])
            check_order(known.astype(np.uint32))


def check_order(seqs: NDArray[np.uint32]) -> None:
    """The known sequence numbers of one direction rise by whole calls."""
    ahead = (seqs - seqs[0]).tolist()
    assert len(ahead) > CALLS // 2
    assert ahead == sorted(set(ahead))
    assert all(distance % 64 == 0 and distance < 64 * CALLS for distance in ahead)


@pytest.mark.native
def test_nothing_is_lost_while_hooks_are_put_on(netns: Netns) -> None:
    """Records are written from the first hook on, before anybody reads."""
    with connected(netns) as (client, server):
        child = os.fork()
        while not child:  # it talks until it is killed
            client.send(b"x")
            server.recv(1)
        request = Request(("send", "recv"), Criteria(netns=(netns.inode,)), 0, include_self=True)
        try:
            with Tracing(request) as tracing:
                while not len(tracing.read()):
                    pass
                tracing.stop()
                while len(tracing.drain()):
                    pass
                ledger = tracing.ledger()
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    assert [(entry.ring_full, entry.balances()) for entry in ledger.entries] == [(0, True)] * 2
