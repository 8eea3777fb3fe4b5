"""`tcprism top` as its users run it: in a pipe, on a terminal, on one that goes away."""

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.support.conversation import connected, receive
from tests.support.netns import Netns
from tests.support.tracer import PATIENCE, TCPRISM

pytestmark = pytest.mark.native

PORT = 7200


@contextmanager
def traffic(netns: Netns) -> Iterator[None]:
    """Have a connection with something in its queue."""
    with netns.socket() as listener, netns.socket() as client:
        listener.bind(("127.0.0.1", PORT))
        listener.listen()
        client.connect(("127.0.0.1", PORT))
        server, _ = listener.accept()
        with server:
            client.sendall(bytes(1234))
            yield


def top(netns: Netns, *arguments: str) -> list[str]:
    return [TCPRISM, "top", "--netns", netns.path, "--interval", "200ms", *arguments]


def test_json_has_rates_from_the_second_object_on(netns: Netns) -> None:
    with traffic(netns):
        process = subprocess.Popen(top(netns, "--format", "json"), stdout=subprocess.PIPE)
        assert process.stdout
        objects = [json.loads(process.stdout.readline()) for _ in range(2)]
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0
        process.stdout.close()
    for one in objects:
        unread = [connection["unread"] for connection in one["connections"]]
        assert sorted(unread) == [0, 0, 1234]
    assert {"rate_out", "rate_in", "limited_by", "holders"} <= objects[1]["connections"][0].keys()


def test_a_pipe_gets_a_table_and_may_close(netns: Netns) -> None:
    with traffic(netns):
        process = subprocess.Popen(
            top(netns), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout
        assert process.stderr
        lines = [process.stdout.readline() for _ in range(5)]
        process.stdout.close()
        assert process.wait(PATIENCE) == 0
        assert process.stderr.read() == ""
        process.stderr.close()
    assert lines[1].startswith("OWNER")
    assert sum(f"127.0.0.1:{PORT}" in line for line in lines) == 3


@contextmanager
def on_a_terminal(
    netns: Netns, hang_up: signal.Handlers = signal.SIG_DFL
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run the screens on a terminal of our own; yields once they are there."""

    def begin() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGHUP, hang_up)

    ours, theirs = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(
        top(netns),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env=os.environ | {"TERM": "xterm-256color"},
        preexec_fn=begin,
    )
    os.close(theirs)
    try:
        read_until(ours, b"OWNER")
        yield process, ours
    finally:
        process.kill()
        process.wait()
        with suppress(OSError):
            os.close(ours)


def read_until(terminal: int, text: bytes, meanwhile: Callable[[], None] = lambda: None) -> None:
    """Read what is drawn until a text is in it."""
    seen, deadline = b"", time.monotonic() + PATIENCE
    while text not in seen:
        meanwhile()
        assert time.monotonic() < deadline, seen[-2000:]
        if select.select([terminal], [], [], 0.1)[0]:
            seen += os.read(terminal, 1 << 16)


def await_end(process: subprocess.Popen[bytes], terminal: int) -> int:
    """Read on until the process has ended, for it must not wait for a reader."""
    while process.poll() is None:
        with suppress(OSError):
            if select.select([terminal], [], [], 0.1)[0]:
                os.read(terminal, 1 << 16)
    return process.returncode


def test_q_ends_the_screens(netns: Netns) -> None:
    with traffic(netns), on_a_terminal(netns) as (process, terminal):
        os.write(terminal, b"4")
        read_until(terminal, b"WHAT")
        os.write(terminal, b"q")
        assert await_end(process, terminal) == 0


@pytest.mark.parametrize("hang_up", [signal.SIG_DFL, signal.SIG_IGN], ids=["plain", "nohup"])
def test_a_terminal_that_disappears_ends_it(hang_up: signal.Handlers, netns: Netns) -> None:
    """Under nohup no signal tells: writing to no terminal, the screens hung for ever."""
    with traffic(netns), on_a_terminal(netns, hang_up) as (process, terminal):
        os.close(terminal)
        assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_the_terminal_as_it_was(number: signal.Signals, netns: Netns) -> None:
    with traffic(netns), on_a_terminal(netns) as (process, terminal):
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)  # comes with SIGHUP, where the kernel sends it
        seen = b""
        with suppress(OSError):  # EIO: nobody has it open any more
            while select.select([terminal], [], [], PATIENCE)[0]:
                seen += os.read(terminal, 1 << 16)
        assert process.wait(PATIENCE) == 0
        assert is_cooked(terminal)
    for mode in (b"?1049l", b"?25h", b"?1000l", b"?1003l", b"?2004l"):
        assert mode in seen, mode


def is_cooked(terminal: int) -> bool:
    """Tell whether the terminal echoes and edits lines; both of its ends have the same modes."""
    flags = termios.tcgetattr(terminal)[3]
    return bool(flags & termios.ICANON and flags & termios.ECHO and flags & termios.ISIG)


def test_a_real_terminal_may_have_any_size(netns: Netns) -> None:
    with traffic(netns), on_a_terminal(netns) as (process, terminal):
        for lines, columns in ((1, 1), (2, 300), (100, 5), (24, 80)):
            fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
            process.send_signal(signal.SIGWINCH)
            os.write(terminal, bytes(range(0x80, 0x100)) + b"/\x1b[200~garbage\x1b[201~\r")
            time.sleep(0.3)
        os.write(terminal, b"\x1bq")
        assert await_end(process, terminal) == 0


def test_a_request_has_its_segments(netns: Netns) -> None:
    """As well as its messages: hooks for both are on in that view."""
    request = b"GET /cart HTTP/1.1\r\nHost: shop\r\n\r\n"
    response = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
    with connected(netns) as (client, server), on_a_terminal(netns) as (_, terminal):

        def exchange() -> None:
            client.sendall(request)
            receive(server, len(request))
            server.sendall(response)
            receive(client, len(response))

        os.write(terminal, b"6")
        read_until(terminal, b"GET /cart", exchange)
        os.write(terminal, b"\r")
        read_until(terminal, b"latest requests", exchange)
        os.write(terminal, b"\r")
        read_until(terminal, b"transmit")
