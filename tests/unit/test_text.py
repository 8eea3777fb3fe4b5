"""Text: what a line says of each kind of event beyond who and where."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

from tcprism.events import Batch, Part
from tcprism.events import _wire as wire
from tcprism.events._wire import EventKind
from tcprism.sinks.text import Text

from .records import connections, deliveries, losses, messages


def end_of_line(part: Part) -> str:
    """Return what the line of the only event says behind its two ends."""
    file = io.BytesIO()
    Text(file, color=False, style="none").write(Batch([part], 1))
    (line,) = file.getvalue().decode("ascii").splitlines()
    return line.rpartition("0.0.0.0:0 ")[2].strip()


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({"unsent_us": 12, "unacked_us": 40_100}, "left after 12 us, acknowledged 40.1 ms later"),
        ({"unacked_us": 40_100}, "acknowledged 40.1 ms later"),
        ({"unsent_us": 12}, "left after 12 us, acknowledged"),
        ({"unsent_us": 0}, "left at once, acknowledged"),
        ({}, "acknowledged"),
    ],
)
def test_acked(fields: dict[str, Any], shown: str) -> None:
    part = deliveries({"bytes": 5, "seq": 2**32 - 2, **fields})
    assert end_of_line(part) == f"5 bytes 4294967294:3 {shown}"


def test_recv_tells_how_long_it_was_unread_where_that_is_known() -> None:
    recv = {"kind": EventKind.RECV, "bytes": 7}
    assert end_of_line(messages({**recv, "unread_us": 3_210})) == "7 bytes unread 3.21 ms"
    assert end_of_line(messages(recv)) == "7 bytes"


def retransmit(**derived: Any) -> Part:
    """Return a retransmission of 100 bytes with what a stage adds to it."""
    part = losses({"bytes": 100, "cause": wire.Cause.RTO})
    return part.derive(**{name: masked(value) for name, value in derived.items()})


def masked(value: Any) -> Any:
    """Return a column of one value, masked when it is None."""
    array = np.empty(1, object if isinstance(value, str) else np.int64)
    array[0] = 0 if value is None else value
    return np.ma.MaskedArray(array, [value is None])


MESSAGE = {"message_pid": 812, "message_comm": "curl", "message_ts_ns": 0, "message_offset": 0}


def test_retransmit_tells_its_cause_and_attempt() -> None:
    assert end_of_line(retransmit()).endswith(" rto")
    assert end_of_line(retransmit(attempt=2)).endswith(" rto #2")
    assert end_of_line(losses({})).endswith(" -")


@pytest.mark.parametrize(
    ("offset", "message_bytes", "shown"),
    [(0, 5000, "0-99"), (4950, 5000, "4950-4999"), (1448, None, "1448-1547")],
)
def test_retransmit_tells_which_bytes_of_which_send(
    offset: int, message_bytes: int | None, shown: str
) -> None:
    part = retransmit(**{**MESSAGE, "message_offset": offset}, message_bytes=message_bytes)
    assert f" rto bytes {shown} of send " in end_of_line(part)
    assert end_of_line(part).endswith(":00.000000 curl[812]")


def test_retransmit_of_a_send_still_going_on() -> None:
    part = retransmit(**{**MESSAGE, "message_ts_ns": None})
    assert end_of_line(part).endswith(" bytes 0-99 of a send still going on curl[812]")
    nameless = retransmit(**{**MESSAGE, "message_ts_ns": None, "message_pid": None})
    assert end_of_line(nameless).endswith(" bytes 0-99 of a send still going on")


@pytest.mark.parametrize(
    ("text", "size", "shown"),
    [
        ("GET /", 5, '"GET /"'),
        ("GET /", 6, '"GET /..."'),
        ("x" * 40, 40, f'"{"x" * 40}"'),
        ("x" * 41, 41, f'"{"x" * 40}..."'),
        (r"\x0a" * 10, 10, '"' + r"\x0a" * 10 + '"'),
        (38 * "x" + r"\x0a\x0d", 40, f'"{"x" * 38}..."'),
        (39 * "x" + r"\\" + "y", 41, f'"{"x" * 39}..."'),
        (38 * "x" + r"\\" + "y", 40, f'"{"x" * 38}\\\\..."'),
    ],
)
def test_the_first_bytes_are_few_and_no_escape_is_cut(text: str, size: int, shown: str) -> None:
    part = retransmit(**MESSAGE, message_text=text, message_bytes=size)
    assert end_of_line(part).endswith(f" curl[812] {shown}")


RANGE = {"seq": 5, "end_seq": 9, "bytes": 4}


@pytest.mark.parametrize(
    ("kind", "fields", "shown"),
    [
        (EventKind.UNDO, {**RANGE, "undone": 1}, "4 bytes 5:9 undid 1 retransmission"),
        (EventKind.UNDO, {**RANGE, "undone": 2}, "4 bytes 5:9 undid 2 retransmissions"),
        (EventKind.DROP, {"outgoing": 1, "bytes": 3, "end_seq": 3, "flags": 0x18},
         "out 3 bytes 0:3 PSH|ACK"),
        (EventKind.DROP, {"end_seq": 1}, "in 0 bytes 0:1 -"),
    ],
)  # fmt: skip
def test_losses(kind: int, fields: dict[str, Any], shown: str) -> None:
    assert end_of_line(losses({"kind": kind, **fields})) == shown


@pytest.mark.parametrize(
    ("kind", "fields", "shown"),
    [
        (EventKind.CONNECT, {"elapsed_ns": 1_200_000, "new_state": 1}, "in 1.2 ms"),
        (EventKind.CONNECT, {"new_state": 1}, "established"),
        (EventKind.CONNECT, {"new_state": 7, "elapsed_ns": 10**9},
         "failed: given up after 1 s, 1 SYN"),
        (EventKind.CONNECT, {"elapsed_ns": 3_100_000_000, "error": -111, "total_retrans": 2},
         "failed: ECONNREFUSED after 3.1 s, 3 SYNs"),
        (EventKind.CONNECT, {"error": 111}, "failed: ECONNREFUSED, 1 SYN"),
        (EventKind.ACCEPT, {"srtt_us": 42}, "rtt 42 us"),
        (EventKind.ACCEPT, {}, "established"),
        (EventKind.RESET, {"sent": 1, "old_state": 1}, "sent in ESTABLISHED"),
        (EventKind.RESET, {}, "received"),
        (EventKind.STATE, {"old_state": 1, "new_state": 4}, "ESTABLISHED -> FIN_WAIT1"),
    ],
)  # fmt: skip
def test_connections(kind: int, fields: dict[str, Any], shown: str) -> None:
    assert end_of_line(connections({"kind": kind, **fields})) == shown


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({"ending": wire.Ending.FIN, "elapsed_ns": 10**9}, "fin after 1 s"),
        ({"ending": wire.Ending.RESET_RECEIVED, "error": -104}, "reset received"),
        ({"ending": wire.Ending.TIMEOUT, "error": -110}, "timeout"),
        ({"ending": wire.Ending.ERROR, "error": -113}, "EHOSTUNREACH"),
        ({}, "closed"),
    ],
)
def test_close_tells_how_it_ended(fields: dict[str, Any], shown: str) -> None:
    part = connections({"kind": EventKind.CLOSE, **fields})
    assert end_of_line(part) == f"{shown}, sent 0 B in 0 segments, received 0 B in 0 segments"


def test_close_tells_the_totals() -> None:
    totals: dict[str, Any] = {
        "bytes_sent": 2_448, "bytes_retrans": 1_448, "data_segs_out": 3, "bytes_received": 5_000,
        "data_segs_in": 1, "total_retrans": 1, "srtt_us": 1_200, "min_rtt_us": 1_000,
        "congestion": b"cubic",
    }  # fmt: skip
    assert end_of_line(connections({"kind": EventKind.CLOSE, **totals})) == (
        "closed, sent 1 kB in 3 segments, received 5 kB in 1 segment,"
        " 1 sent again, rtt 1.2 ms (min 1 ms), cubic"
    )


def test_a_drop_is_drawn_as_it_went() -> None:
    """A SYN from outside that finds nobody on port 7777 does not leave that port."""
    ends = {"local_ip": "192.0.2.1", "local_port": 7777, "remote_ip": "198.51.100.7"}
    drop = {**ends, "remote_port": 40_000, "kind": EventKind.DROP, "flags": 2}
    file = io.BytesIO()
    sink = Text(file, color=False)
    sink.write(
        Batch(
            [
                losses(
                    {**drop, "outgoing": 0},
                    {**drop, "outgoing": 1},
                    {**drop, "kind": EventKind.RETRANSMIT},
                )
            ]
        )
    )
    arrows = [
        line.split("192.0.2.1:7777 ")[1][:2] for line in file.getvalue().decode().splitlines()
    ]
    assert arrows == ["<-", "->", "->"]
