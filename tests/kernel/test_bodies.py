"""HTTP/1 bodies come without payload, and nothing else does: the truth is what the ends wrote."""

import socket
import threading
from collections import defaultdict
from dataclasses import dataclass, field

import pytest

from tcprism.events import Event
from tcprism.events.requests import NEEDS
from tcprism.filters import Criteria
from tcprism.sources.request import Request
from tcprism.sources.tracing import Tracing
from tcprism.stages.requests import Requests
from tests.support.conversation import connected
from tests.support.netns import namespace

PIECE = 8192  # bytes of a call: the hook looks at no less than 4096, and takes all of it
BODY = b"x" * 300_000
GET = b"GET /long HTTP/1.1\r\nHost: shop\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\n"
EMPTY = OK + b"Content-Length: 0\r\n\r\n"


def with_length(body: bytes, head: bytes = b"Content-Length: ") -> bytes:
    """Return a response whose head ends with the length of its body."""
    return OK + head + b"%d\r\n\r\n" % len(body) + body


def in_a_chunk(head: bytes = b"") -> bytes:
    """Return a response in one chunk: its length is not in its head, or not to be believed."""
    head = OK + head + b"Transfer-Encoding: chunked\r\n\r\n"
    return head + b"%x\r\n" % len(BODY) + BODY + b"\r\n0\r\n\r\n"


POST = b"POST /up HTTP/1.1\r\nhost: shop\r\ncontent-length: 300000\r\n\r\n" + BODY


@dataclass(frozen=True)
class Exchange:
    """What the client sends, the responses, and whether a body is left out.

    That needs a head at the beginning of a message.
    """

    there: bytes
    responses: tuple[bytes, ...]
    left_out: bool


EXCHANGES = {
    "response": Exchange(GET, (with_length(BODY),), True),
    "request": Exchange(POST, (EMPTY,), True),
    "pipelined": Exchange(3 * GET, 3 * (with_length(BODY),), True),
    "chunk": Exchange(GET, (in_a_chunk(),), False),
    "chunk and length": Exchange(GET, (in_a_chunk(b"Content-Length: 300000\r\n"),), False),
    "no space": Exchange(GET, (with_length(BODY, b"CONTENT-LENGTH:"),), False),
    "long head": Exchange(
        GET, (with_length(BODY, b"Set-Cookie: " + b"c" * 1024 + b"\r\nContent-Length: "),), False
    ),
    "short body": Exchange(GET, (with_length(b"x" * 6000),), False),
}


@dataclass
class Seen:
    """What was seen of an exchange: messages, and the bytes of each response."""

    client: int = 0  # its port
    messages: list[Event] = field(default_factory=list)
    responses: list[int | None] = field(default_factory=list)


def transfer(sender: socket.socket, receiver: socket.socket, stream: bytes) -> None:
    """Send and receive a stream, in pieces of the same size."""

    def take() -> None:
        left = len(stream)
        while left:
            left -= len(receiver.recv(min(left, PIECE), socket.MSG_WAITALL))

    reader = threading.Thread(target=take)
    reader.start()
    for begin in range(0, len(stream), PIECE):
        sender.sendall(stream[begin : begin + PIECE])
    reader.join()


@pytest.fixture(scope="module")
def seen() -> dict[str, Seen]:
    """Trace the exchanges, each on a connection of its own that then goes on."""
    found = {name: Seen() for name in EXCHANGES}
    by_port: dict[int, Seen] = {}
    stage = Requests(alone=True)
    requests: list[Event] = []
    with namespace() as netns:
        chosen = Criteria(netns=(netns.inode,))
        wanted = Request(NEEDS, chosen, payload=PIECE, include_self=True, skip_bodies=True)
        with Tracing(wanted) as tracing:
            for name, exchange in EXCHANGES.items():
                with connected(netns) as (client, server):
                    found[name].client = client.getsockname()[1]
                    by_port[found[name].client] = found[name]
                    transfer(client, server, exchange.there)
                    transfer(server, client, b"".join(exchange.responses))
                    transfer(client, server, GET)
                    transfer(server, client, EMPTY)
            tracing.stop()
            while len(batch := tracing.drain()):
                for event in batch:
                    if event.kind in ("send", "recv"):
                        ours = {event.local_port, event.remote_port} & {*by_port}
                        by_port[ours.pop()].messages.append(event)
                requests += stage(batch)
            requests += stage.close()
    for request in requests:
        by_port[request.local_port].responses.append(request.response_bytes)
    return found


@pytest.mark.parametrize("name", EXCHANGES)
def test_requests_are_exact(seen: dict[str, Seen], name: str) -> None:
    """Also the one after a body that was left out."""
    wanted = [len(response) for response in EXCHANGES[name].responses]
    assert seen[name].responses == [*wanted, len(EMPTY)]


@pytest.mark.parametrize("name", EXCHANGES)
def test_bodies_are_left_out_and_nothing_else(seen: dict[str, Seen], name: str) -> None:
    exchange = EXCHANGES[name]
    streams = {
        True: exchange.there + GET,
        False: b"".join((*exchange.responses, EMPTY)),
    }
    at: dict[tuple[str, int], int] = defaultdict(int)
    left_out = 0
    for event in seen[name].messages:
        flow = event.kind, event.local_port
        stream = streams[(event.kind == "send") == (event.local_port == seen[name].client)]
        said = stream[at[flow] : at[flow] + event.bytes]
        at[flow] += event.bytes
        if event.payload_unavailable == "body":
            assert said == b"x" * event.bytes
            left_out += event.bytes
        else:
            assert event.payload == said
    known = all(event.socket for event in seen[name].messages)  # before 5.11 many have no cookie
    # One body, as it is sent and received.
    most = 2 * len(BODY) if exchange.left_out and known else 0
    assert most - 4 * PIECE <= left_out <= most
