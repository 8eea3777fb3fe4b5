"""MPTCP: a process calls a socket of its own kind, above the TCP connections."""

import base64
import os
import socket
from pathlib import Path

from tests.support import hooks
from tests.support.netns import Netns
from tests.support.tracer import tracing_all

IPPROTO_MPTCP = 262
PROTOCOL = IPPROTO_MPTCP if hooks.has_mptcp() else socket.IPPROTO_TCP
REMARK = "MPTCP sockets were used, and what they send and receive is not shown"


def stream_socket(netns: Netns) -> socket.socket:
    with netns.entered():
        return socket.socket(socket.AF_INET, socket.SOCK_STREAM, PROTOCOL)


def test_messages(netns: Netns, tmp_path: Path) -> None:
    """Each call is there with its bytes, or the end says that this hook does not show them."""
    arguments = ["--kinds", "send,recv,connect", "--netns", netns.path, "--ring-size", "1M"]
    best, *_, last = (*hooks.message_hooks()[:1], *hooks.message_hooks())
    runs = {tmp_path / hook: ["--hooks", hook, *arguments] for hook in {best, last}}
    with (
        stream_socket(netns) as listener,
        stream_socket(netns) as client,
        tracing_all(runs) as tracers,
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
        ("send", own, b"to the server"),
        ("recv", 5421, b"to the server"),
        ("send", 5421, b"back"),
        ("recv", own, b"back"),
    ]
    for tracer in tracers:
        messages = [event for event in tracer.events if event["kind"] != "connect"]
        hidden = PROTOCOL == IPPROTO_MPTCP and tracer.output.name != "tracepoint"
        assert any(line.startswith(REMARK) for line in tracer.stderr) == hidden
        assert [
            (event["kind"], event["local_port"], base64.b64decode(event["payload"]))
            for event in messages
        ] == ([] if hidden else calls)
        if PROTOCOL == IPPROTO_MPTCP and not hidden:
            assert {(event["pid"], event["seq"]) for event in messages} == {(os.getpid(), None)}
