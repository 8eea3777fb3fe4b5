"""A process that only looks at a socket holds it, and sends what has been put off meanwhile."""

import os
import socket
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tcprism.filters import Criteria
from tcprism.kernel.object import BpfObject
from tcprism.sources.request import Request
from tcprism.sources.tracing import Tracing
from tests.support.conversation import connected
from tests.support.netns import Netns, namespace

PIECE, LOOKS = 20_000, 150


def look(path: Path, netns: Netns) -> int:
    """Have a child look at all sockets of a namespace again and again; return its pid."""
    if child := os.fork():
        return child
    status = 1
    try:
        netns.enter()
        with BpfObject(path) as bpf:
            bpf.load()
            for _ in range(LOOKS):
                bpf.iterate("hold_sockets")
        status = 0
    finally:
        os._exit(status)


def read_all(client: socket.socket, server: socket.socket) -> int:
    """Have a child read what is sent, to the end; return its pid."""
    if child := os.fork():
        return child
    try:
        client.close()
        while server.recv(1 << 20):
            pass
    finally:
        os._exit(0)


def test_who_looks_at_a_socket_does_not_own_it(compiled: Callable[[str], Path]) -> None:
    chosen, path = ("transmit",), compiled("holds")
    with namespace() as netns, connected(netns) as (client, server):
        reader = read_all(client, server)
        only = Criteria(netns=(netns.inode,))
        request = Request(chosen, only, ring_size=1 << 26, include_self=True)
        with Tracing(request) as tracing:
            looker, status = look(path, netns), (0, 0)
            while not status[0]:
                client.sendall(bytes(PIECE))
                status = os.waitpid(looker, os.WNOHANG)
            client.shutdown(socket.SHUT_WR)
            os.waitpid(reader, 0)
            tracing.stop()
            owners: Counter[int | None] = Counter()
            while len(batch := tracing.drain()):
                owners.update(event.pid for event in batch)
    assert status == (looker, 0)
    assert owners[os.getpid()]
    assert not owners[looker]
