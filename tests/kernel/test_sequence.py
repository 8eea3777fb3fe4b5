"""`seq` of calls, whatever their flags: the number on the wire, or null where no hook can tell.

The truth: the SYN that the wire carried, and how many bytes were written and read before.
"""

import ctypes
import errno
import os
import select
import socket
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support import hooks
from tests.support.conversation import await_unread
from tests.support.netns import Netns
from tests.support.tracer import Event, Tracer, tracing_all
from tests.support.wire import Wire, deliver, lose_answers, wired

from .ways import await_true

pytestmark = pytest.mark.native  # in a machine, three tracers that start at once take minutes

SO_PEEK_OFF, SO_ZEROCOPY = 42, 60
TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_FASTOPEN, TCP_ZEROCOPY_RECEIVE = 19, 20, 23, 35
REPAIR_OFF, RECEIVE_QUEUE, SEND_QUEUE = -1, 1, 2
MSG_FASTOPEN, MSG_ZEROCOPY = 0x20000000, 0x4000000
FIRST_PORT = 5600
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Call:
    """What a call moved, and where in its stream the bytes are; None: in none.

    `told` says that each hook must know that.
    """

    kind: str
    bytes: int
    offset: int | None
    told: bool = True
    end: str = ""


@dataclass
class Ends:
    """A connection whose client sends and whose server receives; each call is noted."""

    wire: Wire
    client: socket.socket
    server: socket.socket
    calls: list[Call] = field(default_factory=list)

    def send(self, data: bytes, offset: int, flags: int = 0) -> None:
        assert self.client.send(data, flags) == len(data)
        self.calls.append(Call("send", len(data), offset))

    def recv(self, data: bytes, offset: int, flags: int = 0, told: bool = True) -> None:
        """Receive what must be these bytes."""
        assert self.server.recv(len(data), flags) == data
        self.calls.append(Call("recv", len(data), offset, told))

    def await_urgent(self) -> None:
        assert select.select([], [], [self.server], 60)[2]


class CannotRunHere(Exception):
    """This kernel cannot do it."""


Scenario = Callable[[Ends], None]
SCENARIOS: dict[str, Scenario] = {}


def scenario(play: Scenario) -> Scenario:
    SCENARIOS[play.__name__] = play
    return play


@scenario
def peek(ends: Ends) -> None:
    ends.send(b"0123456789", 0)
    ends.recv(b"0123", 0, socket.MSG_PEEK)
    ends.recv(b"012", 0)
    ends.recv(b"3456789", 3, socket.MSG_PEEK)
    ends.recv(b"3456789", 3)


@scenario
def peek_offset(ends: Ends) -> None:
    """Each peek goes on where the one before it ended (Linux 6.9)."""
    try:
        ends.server.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, 0)
    except OSError as error:
        raise CannotRunHere("TCP has no SO_PEEK_OFF here") from error
    ends.send(b"0123456789", 0)
    ends.recv(b"0123", 0, socket.MSG_PEEK)
    ends.recv(b"4567", 4, socket.MSG_PEEK)
    ends.recv(b"012", 0)
    ends.recv(b"89", 8, socket.MSG_PEEK)
    ends.recv(b"3456789", 3)


@scenario
def urgent(ends: Ends) -> None:
    """The last byte is urgent: it is read apart, and skipped where the stream is read."""
    ends.send(b"abC", 0, socket.MSG_OOB)
    ends.await_urgent()
    ends.recv(b"ab", 0)
    ends.recv(b"C", 2, socket.MSG_OOB, told=False)
    ends.send(b"de", 3)
    ends.recv(b"de", 3, told=False)


@scenario
def urgent_first(ends: Ends) -> None:
    ends.send(b"abC", 0, socket.MSG_OOB)
    ends.send(b"de", 3)
    ends.await_urgent()
    ends.recv(b"C", 2, socket.MSG_OOB | socket.MSG_PEEK, told=False)
    ends.recv(b"C", 2, socket.MSG_OOB, told=False)
    ends.recv(b"ab", 0)
    ends.recv(b"de", 3, socket.MSG_PEEK, told=False)
    ends.recv(b"de", 3, told=False)


@scenario
def urgent_in_line(ends: Ends) -> None:
    ends.server.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    ends.send(b"abC", 0, socket.MSG_OOB)
    ends.recv(b"ab", 0)
    ends.recv(b"C", 2)


@scenario
def discard(ends: Ends) -> None:
    """MSG_TRUNC throws bytes away."""
    ends.send(b"0123456789", 0)
    buffer = ctypes.create_string_buffer(4)
    assert LIBC.recv(ends.server.fileno(), buffer, 4, socket.MSG_TRUNC) == 4
    ends.calls.append(Call("recv", 4, 0))
    ends.recv(b"456789", 4)


@scenario
def wait_for_all(ends: Ends) -> None:
    ends.send(b"01234", 0)
    late = threading.Timer(0.1, lambda: ends.send(b"56789", 5))
    late.start()
    ends.recv(b"0123456789", 0, socket.MSG_WAITALL)
    late.join()


@scenario
def small_pieces(ends: Ends) -> None:
    ends.send(b"01", 0, socket.MSG_MORE)
    ends.send(b"23", 2, socket.MSG_EOR)
    ends.send(b"45", 4, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    ends.recv(b"012345", 0, socket.MSG_WAITALL)


@scenario
def zero_copy(ends: Ends) -> None:
    """What the error queue has is no message."""
    ends.client.setsockopt(socket.SOL_SOCKET, SO_ZEROCOPY, 1)
    ends.send(b"z" * 2 * PAGE, 0, MSG_ZEROCOPY)
    ends.recv(b"z" * 2 * PAGE, 0, socket.MSG_WAITALL)
    await_true(lambda: completed(ends.client))
    ends.send(b"on", 2 * PAGE)
    ends.recv(b"on", 2 * PAGE)


def completed(end: socket.socket) -> bool:
    with suppress(BlockingIOError):
        end.recvmsg(0, 200, socket.MSG_ERRQUEUE)
        return True
    return False


@scenario
def repair(ends: Ends) -> None:
    """In repair mode either queue is read or written, which is not where the stream goes on."""
    ends.wire.rule = lose_answers
    ends.send(b"01234", 0)
    enter_repair(ends.client, SEND_QUEUE)
    assert ends.client.recv(5, socket.MSG_PEEK) == b"01234"
    ends.calls.append(Call("recv", 5, None, end="client"))
    ends.client.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, REPAIR_OFF)
    ends.wire.rule = deliver
    ends.recv(b"01234", 0)
    enter_repair(ends.server, RECEIVE_QUEUE)
    assert ends.server.send(b"put in") == 6
    ends.calls.append(Call("send", 6, None, end="server"))
    ends.server.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, REPAIR_OFF)


def enter_repair(end: socket.socket, queue: int) -> None:
    end.settimeout(None)
    end.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    end.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_QUEUE, queue)


@scenario
def splice(ends: Ends) -> None:
    """Bytes that a pipe takes are no recv; the next read goes on behind them."""
    ends.send(b"0123456789", 0)
    await_unread(ends.server, 10)
    readable, writable = os.pipe()
    assert os.splice(ends.server.fileno(), writable, 4) == 4
    os.close(readable)
    os.close(writable)
    ends.recv(b"456789", 4)


@scenario
def sendfile(ends: Ends) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(b"0123456789")
        file.flush()
        assert os.sendfile(ends.client.fileno(), file.fileno(), 0, 10) == 10
    ends.calls.append(Call("send", 10, 0))
    ends.send(b"ab", 10)
    ends.recv(b"0123456789ab", 0, socket.MSG_WAITALL)


@scenario
def zero_copy_receive(ends: Ends) -> None:
    """TCP_ZEROCOPY_RECEIVE is no recv; the next read goes on behind what it took."""
    ends.send(b"0123456789", 0)
    await_unread(ends.server, 10)
    with mapped(ends.server) as address:
        copy = ctypes.create_string_buffer(PAGE)
        asked = bytearray(struct.pack("QIIIiQiI", address, PAGE, 0, 0, 0,
                                      ctypes.addressof(copy), 10, 0))  # fmt: skip
        answer = (ctypes.c_char * len(asked)).from_buffer(asked)
        length = ctypes.c_uint(len(asked))
        if LIBC.getsockopt(ends.server.fileno(), socket.IPPROTO_TCP, TCP_ZEROCOPY_RECEIVE,
                           answer, ctypes.byref(length)):  # fmt: skip
            raise CannotRunHere(f"TCP_ZEROCOPY_RECEIVE: {errno.errorcode[ctypes.get_errno()]}")
    taken = struct.unpack_from("i", asked, 32)[0]
    if taken != 10:
        raise CannotRunHere("TCP_ZEROCOPY_RECEIVE copies nothing here")
    assert copy.raw[:10] == b"0123456789"
    ends.send(b"ab", 10)
    ends.recv(b"ab", 10)


@contextmanager
def mapped(end: socket.socket) -> Iterator[int]:
    """Map a page of the socket's own memory."""
    read_only, shared = 1, 1
    address = LIBC.mmap(None, PAGE, read_only, shared, end.fileno(), 0)
    if address in (None, ctypes.c_void_p(-1).value):
        raise CannotRunHere("this kernel maps no sockets")
    yield address
    LIBC.munmap(ctypes.c_void_p(address), PAGE)


LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.mmap.restype = ctypes.c_void_p
LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]


def fast_open(wire: Wire, port: int) -> Ends:
    """The first bytes travel in the SYN, without asking for a cookie.

    A hook at the entry finds no sequence number there yet.
    """
    address = (wire.server_addresses[4], port)
    for end in (wire.client, wire.server):
        end.configure("net/ipv4/tcp_fastopen", str(0x1 | 0x2 | 0x4 | 0x200))
    client = wire.client.socket()
    with wire.server.socket() as listener:
        listener.bind(address)
        listener.listen()
        listener.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN, 5)
        assert client.sendto(b"early", MSG_FASTOPEN, address) == 5
        ends = Ends(wire, client, listener.accept()[0], [Call("send", 5, 0, told=False)])
    ends.server.settimeout(None)
    ends.send(b"later", 5)
    ends.recv(b"earlylater", 0, socket.MSG_WAITALL)
    return ends


@dataclass
class Played:
    """What came of a scenario."""

    port: int
    first: int = 0
    calls: list[Call] = field(default_factory=list)
    why_not: str = ""


def play(wire: Wire, name: str, port: int) -> Played:
    played, passed = Played(port), len(wire.passed)
    if name == "fast_open":
        ends = fast_open(wire, port)
    else:
        ends = Ends(wire, *wire.connection(4, port))
        ends.server.settimeout(None)  # the kernel waits: Python would poll, and for other data
        try:
            SCENARIOS[name](ends)
        except CannotRunHere as error:
            played.why_not = str(error)
    with closing(ends.client), closing(ends.server):
        played.calls = ends.calls
    played.first = next(p.seq + 1 for p in wire.passed[passed:] if p.flags == "SYN") & 0xFFFFFFFF
    return played


ALL = (*SCENARIOS, "fast_open")


@pytest.fixture(scope="module")
def recorded(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[dict[str, Played], dict[str, Tracer]]:
    """All scenarios, and what each hook told."""
    directory = tmp_path_factory.mktemp("sequence")
    with wired() as wire:
        common = ["--kinds", "send,recv", "--payload", "0", "--netns", wire.client.path,
                  "--netns", wire.server.path]  # fmt: skip
        runs = {directory / hook: [*common, "--hooks", hook] for hook in hooks.message_hooks()}
        with tracing_all(runs) as tracers:
            played = {
                name: play(wire, name, FIRST_PORT + number) for number, name in enumerate(ALL)
            }
    return played, dict(zip(hooks.message_hooks(), tracers, strict=True))


def events_of(tracer: Tracer, port: int, call: Call) -> list[Event]:
    """Return the events of the calls of the kind and at the end of a call."""
    end = call.end or {"send": "client", "recv": "server"}[call.kind]
    key = "remote_port" if end == "client" else "local_port"
    return [e for e in tracer.events if e["kind"] == call.kind and e[key] == port and e["bytes"]]


@pytest.mark.parametrize("hook", hooks.message_hooks())
@pytest.mark.parametrize("name", ALL)
def test_seq(recorded: tuple[dict[str, Played], dict[str, Tracer]], name: str, hook: str) -> None:
    """Each call is an event, with the number that the wire gave its first byte or none."""
    played, tracer = recorded[0][name], recorded[1][hook]
    if played.why_not:
        pytest.skip(played.why_not)
    for kind, end in {(call.kind, call.end) for call in played.calls}:
        calls = [call for call in played.calls if (call.kind, call.end) == (kind, end)]
        events = events_of(tracer, played.port, calls[0])
        assert [event["bytes"] for event in events] == [call.bytes for call in calls]
        for call, event in zip(calls, events, strict=True):
            right = None if call.offset is None else played.first + call.offset & 0xFFFFFFFF
            allowed = {right} if call.told else {right, None}
            assert event["seq"] in allowed, call


def test_a_send_in_the_middle_of_another(netns: Netns, tmp_path: Path) -> None:
    """One thread waits for room in a send, and another sends: nobody's number may be wrong."""
    names = hooks.message_hooks()
    common = ["--kinds", "send", "--payload", "0", "--netns", netns.path]
    with tracing_all({tmp_path / hook: ["--hooks", hook, *common] for hook in names}) as tracers:
        stream = play_in_the_middle(netns)
    for tracer in tracers:
        sends = {event["bytes"]: event["seq"] for event in tracer.events}
        assert set(sends) == {1, len(FIRST), LONG}
        for sent, byte in ((1, b"b"), (LONG, b"a")):
            right = sends[len(FIRST)] + stream.index(byte) & 0xFFFFFFFF
            assert sends[sent] in (right, None)


FIRST, LONG = b"first", 1 << 22


def play_in_the_middle(netns: Netns) -> bytes:
    """Return the stream: FIRST, then LONG times an "a" with a "b" among them."""
    with netns.socket() as listener, netns.socket() as client:
        listener.bind(("127.0.0.1", FIRST_PORT))
        listener.listen()
        client.connect(listener.getsockname())
        server, _ = listener.accept()
        client.settimeout(None)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 15)
        with server:
            client.sendall(FIRST)
            long, short = (
                threading.Thread(target=client.send, args=(data,)) for data in (b"a" * LONG, b"b")
            )
            long.start()
            stream = bytearray(server.recv(2 * len(FIRST), socket.MSG_WAITALL))  # it has begun
            short.start()
            while short.is_alive() and long.is_alive():
                stream += server.recv(1 << 15)
            while len(stream) < len(FIRST) + LONG + 1:
                stream += server.recv(1 << 20)
            long.join()
            short.join()
    return bytes(stream)
