"""MPTCP: a process calls a socket of its own kind, above the TCP connections."""

import base64
import os
import socket
from pathlib import Path

import pytest

from tests.support import hooks
from tests.support.netns import Netns
from tests.support.tracer import tracing

IPPROTO_MPTCP = 262
pytestmark = pytest.mark.native


@pytest.fixture(autouse=True)
def mptcp() -> None:
    """The kernel has MPTCP, and tells of calls into it."""
    if not hooks.has_mptcp() or "tracepoint" not in hooks.message_hooks():
        pytest.skip("this kernel has no MPTCP, or no tracepoint sock_send_length")


def mptcp_socket(netns: Netns) -> socket.socket:
    with netns.entered():
        return socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP)


def test_messages(netns: Netns, tmp_path: Path) -> None:
    """Each call is there with its bytes; where they are in a TCP stream is not known."""
    arguments = ("--hooks", "tracepoint", "--kinds", "send,recv", "--netns", netns.path)
    with (
        mptcp_socket(netns) as listener,
        mptcp_socket(netns) as client,
        tracing(tmp_path / "events", *arguments) as tracer,
    ):
        listener.bind(("127.0.0.1", 5421))
        listener.listen()
        client.connect(("127.0.0.1", 5421))
        server, _ = listener.accept()
        with server:
            own = client.getsockname()[1]
            client.sendall(b"to the server")
            assert server.recv(100) == b"to the server"
            server.sendall(b"back")
            assert client.recv(100) == b"back"
    calls = [
        (event["kind"], event["local_port"], base64.b64decode(event["payload"]))
        for event in tracer.events
    ]
    assert calls == [
        ("send", own, b"to the server"),
        ("recv", 5421, b"to the server"),
        ("send", 5421, b"back"),
        ("recv", own, b"back"),
    ]
    assert {(event["pid"], event["seq"]) for event in tracer.events} == {(os.getpid(), None)}
