"""Handshakes of processes whose plaintext is not read are counted, each once it is certain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tcprism.events import Batch, Part
from tcprism.events import _wire as wire
from tcprism.events.ledger import Account
from tcprism.stages.uncovered import PATIENCE_NS, Uncovered

from .records import connections, messages, tls_messages

SEND, RECV = wire.EventKind.SEND, wire.EventKind.RECV
COVERED = 7


def hello(random: bytes = b"r") -> bytes:
    return b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + 32 * random + b"more"


def why(pid: int) -> str | None:
    return None if pid == COVERED else "Java in libjvm.so"


def sent(pid: int = 5, **fields: Any) -> dict[str, Any]:
    return {
        "kind": SEND, "pid": pid, "comm": b"java\x1b", "payload": hello(),
        "local_port": 1000, "remote_port": 443, **fields,
    }  # fmt: skip


def account(*parts: Part, stage: Uncovered | None = None) -> Account:
    stage = stage or Uncovered(why)
    for part in parts:
        stage(Batch([part]))
    stage.close()
    return stage.account()


def test_they_are_counted_and_named() -> None:
    asked: list[int] = []

    def noted(pid: int) -> str | None:
        asked.append(pid)
        return why(pid)

    said = account(
        messages(
            sent(),
            sent(local_port=1001),
            sent(COVERED),
            sent(8, kind=RECV),
            sent(9, flags=wire.MessageFlag.ENCRYPTED),
            sent(10, payload=b"GET / HTTP/1.1" + bytes(40)),
            sent(11, payload=b"\x16\x03\x01"),
        ),
        stage=Uncovered(noted),
    )
    assert asked == [5, COVERED]
    assert said.counts == {"tls_uncovered": 2}
    assert said.remarks == (
        "2 TLS handshakes were of processes whose plaintext is not read: java\\x1b[5], Java in"
        " libjvm.so (`tcprism doctor --tls PID` says more)",
    )


Later = Callable[[], Part]


@pytest.mark.parametrize(
    "later",
    [
        lambda: tls_messages(sent(kind=wire.EventKind.TLS_RECV, socket_source=1)),
        lambda: messages(sent(payload=b"\x17\x03\x03", flags=wire.MessageFlag.ENCRYPTED)),
        lambda: tls_messages({"pid": 5, "socket_source": wire.SocketSource.NONE}),
    ],
    ids=["plaintext", "a call", "plaintext of unknown connection"],
)
def test_a_library_that_is_read_a_moment_later(later: Later) -> None:
    assert account(messages(sent()), later()).counts == {"tls_uncovered": 0}


def test_another_library_of_the_same_process() -> None:
    """One connection is read, the other is not."""
    read = tls_messages(sent(local_port=1001, socket_source=1))
    assert account(messages(sent(), sent(local_port=1001)), read).counts == {"tls_uncovered": 1}


def test_it_is_said_when_the_connection_ends() -> None:
    stage = Uncovered(why)
    stage(Batch([messages(sent(ts_ns=5))]))
    assert stage.account().counts == {"tls_uncovered": 0}
    closed = {**sent(), "kind": wire.EventKind.CLOSE}
    del closed["payload"]
    stage(Batch([connections(closed)]))
    assert stage.account().counts == {"tls_uncovered": 1}


def test_it_is_said_after_a_while() -> None:
    stage = Uncovered(why)
    stage(Batch([messages(sent(ts_ns=5))]))
    stage.tick(PATIENCE_NS)
    assert stage.account().counts == {"tls_uncovered": 0}
    stage.tick(PATIENCE_NS + 6)
    assert stage.account().counts == {"tls_uncovered": 1}


def test_a_proxy_passes_hellos_on() -> None:
    came = sent(kind=RECV, local_port=443, remote_port=2000)
    assert account(messages(came, sent())).counts == {"tls_uncovered": 0}
    other = {**came, "payload": hello(b"s")}
    assert account(messages(other, sent())).counts == {"tls_uncovered": 1}


def test_a_process_that_talks_to_itself_passes_nothing_on() -> None:
    came = sent(kind=RECV, local_port=443, remote_port=1000)
    assert account(messages(came, sent())).counts == {"tls_uncovered": 1}
