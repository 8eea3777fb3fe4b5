"""Handshakes of processes whose plaintext is not read are counted."""

from __future__ import annotations

from tcprism.events import Batch
from tcprism.events import _wire as wire
from tcprism.stages.uncovered import Uncovered

from .records import messages

HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
SEND, RECV = wire.EventKind.SEND, wire.EventKind.RECV


def test_they_are_counted_and_named() -> None:
    asked: list[int] = []

    def covers(pid: int) -> bool:
        asked.append(pid)
        return pid == 7

    stage = Uncovered(covers)
    stage(
        Batch(
            [
                messages(
                    {"kind": SEND, "pid": 5, "comm": b"java\x1b", "payload": HELLO},
                    {"kind": SEND, "pid": 5, "comm": b"java\x1b", "payload": HELLO},
                    {"kind": SEND, "pid": 7, "comm": b"node", "payload": HELLO},
                    {"kind": RECV, "pid": 8, "comm": b"nc", "payload": HELLO},
                    {"kind": SEND, "pid": 9, "comm": b"curl", "payload": HELLO,
                     "flags": wire.MessageFlag.ENCRYPTED},
                    {"kind": SEND, "pid": 10, "comm": b"nc", "payload": b"GET / HTTP/1.1"},
                    {"kind": SEND, "pid": 11, "comm": b"nc", "payload": b"\x16\x03\x01"},
                )
            ]
        )
    )  # fmt: skip
    account = stage.account()
    assert asked == [5, 7]
    assert account.counts == {"tls_uncovered": 2}
    assert account.remarks == (
        "2 TLS handshakes were of processes whose plaintext is not read: java\\x1b[5]"
        " (`tcprism doctor --tls PID` says why)",
    )
