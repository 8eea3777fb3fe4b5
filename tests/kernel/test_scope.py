"""Link-local addresses: the same two on two links are two connections.

The truth: the interfaces' indexes, and what getsockname() says.
"""

import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.conversation import hang_up, receive
from tests.support.netns import Pair, namespace, run
from tests.support.tracer import TCPRISM, tracing

pytestmark = pytest.mark.native

CLIENT, SERVER, PORT, SOURCE = "fe80::1", "fe80::2", 9700, 9701
LINKS = ("left", "right")


@pytest.fixture
def twice_joined() -> Iterator[Pair]:
    """Two namespaces with two links between them, all with the same two addresses."""
    with namespace() as client, namespace() as server:
        for link in LINKS:
            run("ip", "-n", client.name, "link", "add", link, "type", "veth",
                "peer", "name", link, "netns", server.name)  # fmt: skip
            for end, address in ((client, CLIENT), (server, SERVER)):
                run("ip", "-n", end.name, "link", "set", link, "addrgenmode", "none")
                run("ip", "-n", end.name, "link", "set", link, "up")
                run("ip", "-n", end.name, "address", "add", f"{address}/64", "dev", link, "nodad")
        yield Pair(client, server)


def indexes(pair: Pair) -> dict[str, int]:
    """Return the client's indexes of the links."""
    with pair.client.entered():
        return {link: socket.if_nametoindex(link) for link in LINKS}


def converse(pair: Pair, scope_id: int) -> None:
    """Send ten bytes over a link, each time between the same ports."""
    with (
        pair.server.socket(socket.AF_INET6) as listener,
        pair.client.socket(socket.AF_INET6) as client,
    ):
        listener.bind(("::", PORT))
        listener.listen()
        client.bind((CLIENT, SOURCE, 0, scope_id))
        client.connect((SERVER, PORT, 0, scope_id))
        server, _ = listener.accept()
        with closing(server):
            client.sendall(b"0123456789")
            receive(server, 10)
            hang_up(server, client)  # so that the client's ports are free again


def test_each_event_has_its_link(twice_joined: Pair, tmp_path: Path) -> None:
    """Of whatever kind."""
    links = indexes(twice_joined)
    kinds = ("--kinds", "connect,send,transmit,close")
    with tracing(tmp_path / "events", *kinds, "--netns", twice_joined.client.path) as tracer:
        for scope_id in links.values():
            converse(twice_joined, scope_id)
    assert {event["local_ip"] for event in tracer.events} == {CLIENT}
    by_link = {
        scope_id: [e["kind"] for e in tracer.events if e["scope_id"] == scope_id]
        for scope_id in links.values()
    }
    assert sum(map(len, by_link.values())) == len(tracer.events)
    for found in by_link.values():
        assert {"connect", "send", "transmit", "close"} <= set(found)
        assert found.count("connect") == found.count("close") == found.count("send") == 1


def test_a_scope_chooses_one_link(twice_joined: Pair, tmp_path: Path) -> None:
    """`--host` with an interface, by its index; without one, both links."""
    links = indexes(twice_joined)
    chosen = ("--host", f"{SERVER}%{links['right']}", "--kinds", "connect,send,transmit")
    netns = ("--netns", twice_joined.client.path)
    with (
        tracing(tmp_path / "one", *chosen, *netns) as one,
        tracing(tmp_path / "both", "--host", SERVER, *netns) as both,
    ):
        for scope_id in links.values():
            converse(twice_joined, scope_id)
    assert {event["scope_id"] for event in one.events} == {links["right"]}
    assert {event["scope_id"] for event in both.events} == set(links.values())


def test_text_names_the_interface(twice_joined: Pair) -> None:
    """As `ip` does, also where it is in another network namespace."""
    links = indexes(twice_joined)
    command = (TCPRISM, "trace", "--kinds", "connect", "--count", "2", "--format", "text",
               "--netns", twice_joined.client.path)  # fmt: skip
    with (
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process,
        subprocess.Popen(twice_joined.client.command("sleep", "60")) as there,
    ):
        assert process.stderr
        while not process.stderr.readline().startswith("tracing"):
            pass
        for scope_id in links.values():
            converse(twice_joined, scope_id)
        output, _ = process.communicate(timeout=300)
        there.kill()
    for link, line in zip(LINKS, output.splitlines(), strict=True):
        assert f"[{CLIENT}%{link}]:{SOURCE} -> [{SERVER}%{link}]:{PORT}" in line
