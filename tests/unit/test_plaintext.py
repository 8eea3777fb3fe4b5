"""Requests inside TLS: plaintext joined to the stream that carries it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tcprism.events import Batch, Event, Part
from tcprism.events import _wire as wire
from tcprism.stages.encrypted import WithoutEncrypted
from tcprism.stages.plaintext import Places
from tcprism.stages.requests import Requests

from .records import losses, messages, tls_messages

ENDS = {
    "netns": 7,
    "local_ip": "10.0.0.1",
    "local_port": 40000,
    "remote_ip": "10.0.0.2",
    "remote_port": 443,
    "pid": 11,
}
SWAPPED = {
    "local_ip": "remote_ip",
    "local_port": "remote_port",
    "remote_ip": "local_ip",
    "remote_port": "local_port",
}
MS = 1_000_000
REQUEST = b"GET /pay HTTP/1.1\r\nHost: a\r\n\r\n"
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
OVERHEAD = 22  # a record of TLS 1.3: header, type, tag

SEND, RECV = wire.EventKind.SEND, wire.EventKind.RECV
TLS_SEND, TLS_RECV = wire.EventKind.TLS_SEND, wire.EventKind.TLS_RECV


def encrypted(kind: int, ts_ns: int, seq: int, size: int, **more: Any) -> dict[str, Any]:
    return {
        **ENDS,
        "kind": kind,
        "ts_ns": ts_ns,
        "seq": seq,
        "bytes": size,
        "flags": wire.MessageFlag.ENCRYPTED,
        "payload_unavailable": wire.PayloadReason.ENCRYPTED,
        **more,
    }


def plain(kind: int, ts_ns: int, payload: bytes, carried: tuple[int, int] | None) -> dict[str, Any]:
    seq, size = carried or (0, 0)
    return {
        **ENDS,
        "kind": kind,
        "ts_ns": ts_ns,
        "payload": payload,
        "seq": seq,
        "encrypted_bytes": size,
        "flags": 0 if carried else wire.MessageFlag.SEQ_UNKNOWN,
        "socket_source": wire.SocketSource.CALL if carried else wire.SocketSource.SESSION,
        "duration_ns": 1000,
    }


def requests_in(*parts: Part) -> list[Event]:
    """Return the requests that are found in some events."""
    stage = Requests(alone=True)
    return [*stage(Batch(parts)), *stage.close()]


def test_a_request_has_the_times_and_bytes_of_its_records() -> None:
    there, back = len(REQUEST) + OVERHEAD, len(RESPONSE) + OVERHEAD
    (one,) = requests_in(
        messages(
            encrypted(SEND, 10 * MS, 1000, there, duration_ns=MS),
            encrypted(RECV, 50 * MS, 9000, back, unread_us=3_000),
        ),
        tls_messages(
            plain(TLS_SEND, 11 * MS, REQUEST, (1000, there)),
            plain(TLS_RECV, 51 * MS, RESPONSE, (9000, back)),
        ),
    )
    assert (one["kind"], one["method"], one["resource"], one["status"]) == (
        *("request", "GET", "/pay", "200"),
    )
    assert (one["request_bytes"], one["response_bytes"]) == (len(REQUEST), len(RESPONSE))
    assert (one["request_seq"], one["response_seq"]) == (1000, 9000)
    assert one["start_ts_ns"] == 9 * MS
    assert one["request_ns"] == 41 * MS
    assert one["unread_ns"] == 3 * MS


def test_plaintext_that_is_seen_before_its_end_s_messages_is_of_the_same_connection() -> None:
    """The server's stream has other numbers than the client's, as that of a long answer."""
    there, back = len(REQUEST) + OVERHEAD, len(RESPONSE) + OVERHEAD
    server = {name: ENDS[other] for name, other in SWAPPED.items()} | {"pid": 12}
    (one,) = requests_in(
        messages(
            {**encrypted(RECV, 10 * MS, 1000, there), **server},
            {**encrypted(SEND, 12 * MS, 3_000_000_000, back), **server},
        ),
        tls_messages(
            plain(TLS_SEND, 13 * MS, REQUEST, (1000, there)),
            plain(TLS_RECV, 15 * MS, RESPONSE, (3_000_000_000, back)),
        ),
    )
    assert (one["view"], one["server_pid"]) == ("both", 12)


@pytest.mark.parametrize("first", [TLS_SEND, TLS_RECV])
def test_a_server_that_was_in_a_call_when_tracing_began(first: int) -> None:
    """It is not seen to receive the first request; and its response may be noted before that."""
    there, back = len(REQUEST) + OVERHEAD, len(RESPONSE) + OVERHEAD
    server = {name: ENDS[other] for name, other in SWAPPED.items()} | {"pid": 12}
    at = 13 if first == TLS_SEND else 11
    found = requests_in(
        tls_messages(
            {**plain(TLS_SEND, 12 * MS, RESPONSE, (9000, back)), **server},
            plain(TLS_SEND, at * MS, REQUEST, (1000, there)),
            plain(TLS_RECV, 15 * MS, RESPONSE, (9000, back)),
            plain(TLS_SEND, 20 * MS, REQUEST, (1000 + there, there)),
            {**plain(TLS_RECV, 21 * MS, REQUEST, (1000 + there, there)), **server},
            {**plain(TLS_SEND, 22 * MS, RESPONSE, (9000 + back, back)), **server},
            plain(TLS_RECV, 25 * MS, RESPONSE, (9000 + back, back)),
        ),
    )
    assert [(one["method"], one["status"]) for one in found] == [("GET", "200")] * 2


def test_a_retransmission_of_its_records_is_its_own() -> None:
    there, back = len(REQUEST) + OVERHEAD, len(RESPONSE) + OVERHEAD
    repeated = {
        **ENDS,
        "kind": wire.EventKind.RETRANSMIT,
        "ts_ns": 40 * MS,
        "seq": 1000,
        "bytes": there,
        "cause": wire.Cause.TLP,
        "rto_us": 200_000,
    }
    (one,) = requests_in(
        messages(
            encrypted(SEND, 10 * MS, 1000, there),
            encrypted(RECV, 50 * MS, 9000, back),
        ),
        tls_messages(
            plain(TLS_SEND, 11 * MS, REQUEST, (1000, there)),
            plain(TLS_RECV, 51 * MS, RESPONSE, (9000, back)),
        ),
        losses(repeated),
    )
    assert (one["retransmissions"], one["retransmission_causes"]) == (1, "tlp")
    assert one["retransmission_wait_ns"] == 30 * MS


def test_what_the_library_had_kept_belongs_to_the_records_before() -> None:
    """A program reads a response in two calls, of which the second needs none of TCP."""
    there, back = len(REQUEST) + OVERHEAD, len(RESPONSE) + OVERHEAD
    (one,) = requests_in(
        messages(
            encrypted(SEND, 10 * MS, 1000, there),
            encrypted(RECV, 50 * MS, 9000, back),
        ),
        tls_messages(
            plain(TLS_SEND, 11 * MS, REQUEST, (1000, there)),
            plain(TLS_RECV, 51 * MS, RESPONSE[:20], (9000, back)),
            plain(TLS_RECV, 52 * MS, RESPONSE[20:], None),
        ),
    )
    assert (one["status"], one["response_bytes"]) == ("200", len(RESPONSE))
    assert one["ts_ns"] == 50 * MS


def test_a_session_in_memory_has_moments_of_calls_until_its_records_are_placed() -> None:
    """What it sends has a place before what it receives; nothing waits for one that never comes."""
    there, back = len(REQUEST) + OVERHEAD, len(RESPONSE) + OVERHEAD
    in_memory = {"socket_source": wire.SocketSource.CIPHERTEXT}

    def exchange(number: int, answered: tuple[int, int] | None) -> list[Part]:
        start, seq, offset = 100 * number, 1000 + number * there, number * len(RESPONSE)
        return [
            messages(
                encrypted(SEND, (start + 12) * MS, seq, there, duration_ns=MS, flags=0),
                encrypted(RECV, (start + 50) * MS, 9000 + number * back, back, flags=0),
            ),
            tls_messages(
                {
                    **plain(TLS_SEND, (start + 10) * MS, REQUEST, (seq, there)),
                    "stream_offset": number * len(REQUEST),
                    **in_memory,
                },
                {
                    **plain(TLS_RECV, (start + 52) * MS, RESPONSE, answered),
                    "stream_offset": offset,
                    **in_memory,
                },
            ),
        ]

    stage = Requests(alone=True)
    found = []
    for number, answered in enumerate([None, None, (9000 + 2 * back, back)]):
        (one,) = stage(Batch(exchange(number, answered)))
        found.append(one)
        assert one["start_ts_ns"] == (100 * number + 11) * MS
    assert [*stage.close()] == []
    assert {(one["status"], one["request_state"]) for one in found} == {("200", "complete")}
    assert [one["ts_ns"] for one in found] == [52 * MS, 152 * MS, 250 * MS]
    assert [one["response_seq"] for one in found] == [None, None, 9000 + 2 * back]


@pytest.mark.parametrize("placed", [True, False])
def test_a_response_in_memory_is_not_over_before_its_last_call(placed: bool) -> None:
    there, sizes = len(REQUEST) + OVERHEAD, (len(RESPONSE) - 1 + OVERHEAD, 1 + OVERHEAD)
    in_memory = {"socket_source": wire.SocketSource.CIPHERTEXT}
    carried = [(9000, sizes[0]), (9000 + sizes[0], sizes[1])] if placed else [None, None]
    stage = Requests(alone=True)
    first = stage(
        Batch(
            [
                messages(
                    encrypted(SEND, 12 * MS, 1000, there, duration_ns=MS, flags=0),
                    encrypted(RECV, 20 * MS, 9000, sizes[0], flags=0),
                ),
                tls_messages(
                    {**plain(TLS_SEND, 10 * MS, REQUEST, (1000, there)), **in_memory},
                    {**plain(TLS_RECV, 21 * MS, RESPONSE[:-1], carried[0]), **in_memory},
                ),
            ]
        )
    )
    assert [*first] == []
    (one,) = stage(
        Batch(
            [
                messages(encrypted(RECV, 50 * MS, 9000 + sizes[0], sizes[1], flags=0)),
                tls_messages(
                    {
                        **plain(TLS_RECV, 51 * MS, RESPONSE[-1:], carried[1]),
                        "stream_offset": len(RESPONSE) - 1,
                        **in_memory,
                    }
                ),
            ]
        )
    )
    assert (one["request_state"], one["ts_ns"]) == ("complete", (50 if placed else 51) * MS)


def test_a_server_that_answers_before_the_call_of_the_client_returns() -> None:
    there, back = len(REQUEST) + OVERHEAD, len(RESPONSE) + OVERHEAD
    other = {
        "local_ip": ENDS["remote_ip"],
        "local_port": ENDS["remote_port"],
        "remote_ip": ENDS["local_ip"],
        "remote_port": ENDS["local_port"],
        "pid": 12,
    }
    (one,) = requests_in(
        messages(
            encrypted(SEND, 10 * MS, 1000, there),
            encrypted(RECV, 11 * MS, 1000, there, **other),
            encrypted(SEND, 13 * MS, 9000, back, **other),
            encrypted(RECV, 16 * MS, 9000, back),
        ),
        tls_messages(
            {**plain(TLS_RECV, 12 * MS, REQUEST, (1000, there)), **other},
            {**plain(TLS_SEND, 14 * MS, RESPONSE, (9000, back)), **other},
            plain(TLS_SEND, 15 * MS, REQUEST, (1000, there)),
            plain(TLS_RECV, 17 * MS, RESPONSE, (9000, back)),
        ),
    )
    assert (one["status"], one["view"], one["ts_ns"]) == ("200", "both", 16 * MS)


def test_the_records_of_one_call_are_told_apart() -> None:
    whole = 1 << 14
    places = Places()
    places.add(3 * whole, 1000, 3 * (whole + OVERHEAD))
    assert places.begin(1) == 1000
    assert places.end(2) == 1000 + whole + OVERHEAD
    assert places.begin(1 + whole) == 1000 + whole + OVERHEAD
    assert places.end(1 + 3 * whole) == 1000 + 3 * (whole + OVERHEAD)


def test_records_of_unknown_size_are_taken_together() -> None:
    places = Places()
    places.add(100, 1000, 100 + 2 * OVERHEAD + 1000)
    assert (places.begin(50), places.end(50)) == (1000, 1000 + 100 + 2 * OVERHEAD + 1000)


def test_nothing_is_said_of_bytes_whose_records_were_not_seen() -> None:
    places = Places()
    places.add(10, 0, 0)
    places.add(10, 1000, 32)
    assert places.begin(1) > 1 << 60
    assert places.begin(11) == 1000


@pytest.mark.parametrize("source", [wire.SocketSource.CALL, wire.SocketSource.CIPHERTEXT])
def test_encrypted_messages_are_left_out(source: int) -> None:
    others = {**ENDS, "kind": SEND, "socket": 5}
    batch = Batch(
        [
            messages(encrypted(SEND, 1, 1, 50, socket=3), {**others, "flags": 0}),
            tls_messages({**ENDS, "socket": 5, "socket_source": source, "payload": b"x"}),
        ]
    )
    left = WithoutEncrypted()(batch)
    kept = [] if source == wire.SocketSource.CIPHERTEXT else [5]
    assert left.parts[0].rows["socket"].tolist() == kept
    assert np.unique(left.parts[1].rows["socket"]).tolist() == [5]


def exchanges(count: int) -> list[tuple[bytes, bytes]]:
    """Return requests, each with a response that has its number in the status."""
    return [
        (
            b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number,
            b"HTTP/1.1 %d OK\r\nContent-Length: 2\r\n\r\nok" % (200 + number),
        )
        for number in range(count)
    ]


def calls(said: list[tuple[bytes, bytes]], lost: set[tuple[int, int]]) -> list[Part]:
    """Return the events of exchanges every 20 ms, without the calls that are lost.

    Those are pairs of the number of an exchange, and 0 or 1 for its request or its response. Their
    messages are lost, too.
    """
    plaintext, carried = [], []
    offsets, seqs = [0, 0], [1000, 9000]
    for number, both in enumerate(said):
        for what, data in enumerate(both):
            ts_ns, size = (20 * number + 5 * what + 1) * MS, len(data) + OVERHEAD
            if (number, what) not in lost:
                carried.append(encrypted((SEND, RECV)[what], ts_ns, seqs[what], size))
                call = plain((TLS_SEND, TLS_RECV)[what], ts_ns + 1, data, (seqs[what], size))
                plaintext.append({**call, "stream_offset": offsets[what]})
            offsets[what] += len(data)
            seqs[what] += size
    return [messages(*carried), tls_messages(*plaintext)]


@pytest.mark.parametrize(
    "lost",
    [
        {(2, 0)},
        {(2, 1)},
        {(2, 0), (2, 1)},
        {(2, 1), (3, 0)},
        {(number, 1) for number in range(3)},
        {(number, 0) for number in range(3)},
    ],
)
def test_after_lost_plaintext_no_response_is_taken_for_another_s(
    lost: set[tuple[int, int]],
) -> None:
    stage = Requests(alone=True)
    found = [*stage(Batch(calls(exchanges(12), lost)))]  # while the connection goes on
    whole = [one for one in found if one["request_state"] == "complete"]
    for one in whole:
        number = int(one["resource"][1:])
        assert one["status"] == str(200 + number)
        assert (one["start_ts_ns"], one["request_ns"]) == ((20 * number + 1) * MS, 5 * MS)
    shown = {int(one["resource"][1:]) for one in whole}
    assert {10, 11} <= shown  # exact again
    assert not shown & {number for number, _ in lost}


def test_a_call_whose_message_was_lost_does_not_have_the_moment_of_a_later_one() -> None:
    carried, plaintext = calls(exchanges(3), set())
    kept = carried.take(np.array([0, 2, 3, 4, 5]))  # without the first read
    first, *others = requests_in(kept, plaintext)
    assert (first["status"], first["request_ns"], first["request_state"]) == (
        *("200", None, "gap"),
    )
    assert [one["request_ns"] for one in others] == [5 * MS] * 2


def test_numbers_that_no_kernel_gives() -> None:
    """A recording may claim any."""
    most = {"ts_ns": 2**64 - 1, "stream_offset": 2**64 - 1, "duration_ns": 2**64 - 1}
    in_memory = {"socket_source": wire.SocketSource.CIPHERTEXT}
    stage = Requests(alone=True)
    for wrong in (*({name: value} for name, value in most.items()), most, most):
        calls = [
            {**plain(kind, MS, REQUEST, None), **in_memory, **wrong}
            for kind in (TLS_SEND, TLS_RECV)
        ]
        stage(Batch([tls_messages(*calls)]))
    assert {one["protocol"] for one in stage.close()} <= {"http"}
