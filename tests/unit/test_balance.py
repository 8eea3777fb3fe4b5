"""Whether the plaintext of a session is whole, from what the kernel side counts."""

from __future__ import annotations

import struct
from typing import Any

from tcprism.events import Batch
from tcprism.events import _wire as wire
from tcprism.events.ledger import Account
from tcprism.stages.balance import Balance
from tcprism.stages.sampling import is_sampled

from .records import packed, tls_messages

TLS_SEND, TLS_RECV = wire.EventKind.TLS_SEND, wire.EventKind.TLS_RECV
NONE = {
    "tls_plaintext_lost": 0,
    "tls_records_missed": 0,
    "tls_unbalanced": 0,
    "tls_begun_before": 0,
}


def moved(offset: int, size: int, **fields: Any) -> dict[str, Any]:
    return {
        "kind": TLS_SEND, "pid": 5, "comm": b"curl\x1b", "session": 0xF00,
        "local_ip": "10.0.0.1", "remote_ip": "10.0.0.2", "local_port": 1000, "remote_port": 443,
        "socket_source": wire.SocketSource.CALL, "payload_length": 0,
        "bytes": size, "stream_offset": offset, "encrypted_bytes": size + 22, **fields,
    }  # fmt: skip


def account(*batches: list[dict[str, Any]]) -> Account:
    stage = Balance()
    for rows in batches:
        stage(Batch([tls_messages(row) for row in rows]))
    return stage.account()


BACK = {"kind": TLS_RECV, "encrypted_bytes": 0}  # of the record before


def test_a_whole_session() -> None:
    said = account(
        [moved(0, 10), moved(10, 20)],
        [moved(30, 5), moved(0, 300, kind=TLS_RECV, encrypted_bytes=372), moved(300, 50, **BACK)],
        [moved(0, 7, local_port=1001)],
    )
    assert said == Account(counts=NONE)


def test_more_plaintext_than_its_records_can_have() -> None:
    said = account([moved(0, 300, kind=TLS_RECV), moved(300, 50, **BACK)])
    assert said.counts == NONE | {"tls_unbalanced": 350 + 14 - 322}


def test_in_any_order() -> None:
    assert account([moved(10, 20)], [moved(30, 5), moved(0, 10)]) == Account(counts=NONE)


def test_events_that_did_not_arrive() -> None:
    said = account([moved(0, 10)], [moved(50, 10)])
    assert said.counts == NONE | {"tls_plaintext_lost": 40}
    assert said.remarks == (
        "40 bytes of plaintext are missing, as their events were lost: curl\\x1b[5],"
        " 10.0.0.1:1000 > 10.0.0.2:443",
    )


def test_the_first_event_did_not_arrive() -> None:
    assert account([moved(40, 10)]).counts == NONE | {"tls_plaintext_lost": 40}


def test_records_that_others_moved() -> None:
    said = account([moved(0, 10), moved(10, 5, missed_bytes=100)], [moved(15, 5, missed_bytes=130)])
    assert said.counts == NONE | {"tls_records_missed": 130}


def test_a_session_that_had_begun() -> None:
    begun = {"missed_bytes": wire.BYTES_UNKNOWN, "encrypted_bytes": 0}
    said = account([moved(0, 10, **begun), moved(0, 10, kind=TLS_RECV, **begun)])
    assert said.counts == NONE | {"tls_begun_before": 1}
    assert said.remarks == ("1 TLS session had begun before tcprism could read it",)


def test_what_is_of_no_connection_has_no_balance() -> None:
    nowhere = moved(100, 10, socket_source=wire.SocketSource.NONE)
    assert account([nowhere]) == Account(counts=NONE)


PORTS = range(1000, 1064)


def _sampled(port: int, sampling: int) -> bool:
    one, other = (
        bytes(packed(ip)) + struct.pack("<H", at)
        for ip, at in (("10.0.0.1", port), ("10.0.0.2", 443))
    )
    return is_sampled(one, other, sampling)


def test_what_a_sample_leaves_out_is_not_missing() -> None:
    """Connections leave the sample, move 1,000 bytes that nobody records, and come back."""
    stage = Balance()

    def have(offset: int, size: int, sampling: int = 0) -> None:
        rows = [moved(offset, size, local_port=port) for port in PORTS if _sampled(port, sampling)]
        stage(Batch([tls_messages(row) for row in rows]))

    have(0, 10)
    stage.sample(2)
    have(10, 10)  # was recorded before the sample became smaller
    have(20, 1000, sampling=2)
    stage.sample(0)
    have(1020, 10)
    assert stage.account() == Account(counts=NONE)
    have(1040, 10)  # 10 bytes of each are lost now
    assert stage.account().counts == NONE | {"tls_plaintext_lost": 10 * len(PORTS)}


def test_what_is_lost_of_a_sample_is_told() -> None:
    stage = Balance()
    inside = [port for port in PORTS if _sampled(port, 3)]
    assert 0 < len(inside) < len(PORTS)
    for sampling, offset in ((0, 0), (3, 50)):
        stage.sample(sampling)
        for port in inside:
            stage(Batch([tls_messages(moved(offset, 10, local_port=port))]))
    assert stage.account().counts == NONE | {"tls_plaintext_lost": 40 * len(inside)}


def test_a_session_that_is_new_in_the_sample_may_have_begun_before() -> None:
    stage = Balance()
    stage.sample(1)
    stage.sample(0)
    stage(Batch([tls_messages(moved(500, 10))]))
    assert stage.account() == Account(counts=NONE)
