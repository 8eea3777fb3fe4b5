"""The two views: a line a connection, and what was sent again in sums."""

from __future__ import annotations

import io
from typing import Any

import pytest

from tcprism.cli.presets import ended, without_reasons
from tcprism.events import Batch
from tcprism.events._wire import Cause, Ending, EventKind
from tcprism.events.context import Context
from tcprism.events.names import STATES
from tcprism.events.part import Part
from tcprism.sinks import retransmit_summary
from tcprism.sinks.connections import HEADER, Connections
from tcprism.sinks.retransmit_summary import RetransmitSummary

from .records import Fields, connections, losses, messages, segments

CLOSE: Fields = {
    "kind": EventKind.CLOSE, "pid": 812, "comm": b"curl", "elapsed_ns": 12_345_678_901,
    "local_ip": "192.0.2.10", "local_port": 45_678, "remote_ip": "198.51.100.7", "remote_port": 80,
    "bytes_sent": 1_239_567, "bytes_retrans": 5_000, "bytes_received": 987, "segs_out": 910,
    "segs_in": 455, "total_retrans": 3, "srtt_us": 1_234, "ending": Ending.FIN,
}  # fmt: skip


def table(*events: Fields) -> list[str]:
    """Return the lines that the connections are shown by, the header first."""
    file = io.BytesIO()
    sink = Connections(file, color=False)
    sink.write(Batch([connections(*events)], 0))
    sink.write(Batch([], 0))
    sink.close()
    return file.getvalue().decode("ascii").splitlines()


def test_a_connection_is_a_line_below_the_header() -> None:
    header, line = table(CLOSE)
    assert header == HEADER.rstrip("\n")
    assert line.split()[1:] == [
        *("curl[812]", "192.0.2.10:45678", "198.51.100.7:80", "12.3", "s", "1.23", "MB"),
        *("987", "B", "910/455", "3", "1.23", "ms", "fin"),
    ]


def test_columns_are_below_their_names() -> None:
    header, line = table(CLOSE)
    for name in ("process", "local", "remote", "ended"):
        assert line[header.index(name) - 1] == " "
        assert line[header.index(name)] != " "
    for name in ("duration", "sent", "received", "segs", "retrans", "rtt"):
        end = header.index(name) + len(name)
        assert (line[end - 1], line[end]) != (" ", " ")
        assert line[end] == " "


def test_without_a_connection_there_is_the_header() -> None:
    assert table() == [HEADER.rstrip("\n")]


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({**CLOSE, "ending": Ending.RESET_RECEIVED, "error": -104}, "reset received"),
        ({"kind": EventKind.CONNECT, "error": -111}, "ECONNREFUSED, 1 SYN"),
        ({"kind": EventKind.CONNECT, "error": -110, "total_retrans": 6}, "ETIMEDOUT, 7 SYNs"),
        ({"kind": EventKind.CONNECT, "new_state": 7}, "given up, 1 SYN"),
        ({"kind": EventKind.STATE}, "open"),
    ],
)
def test_how_it_ended(fields: Fields, shown: str) -> None:
    assert table(fields)[1].endswith(f" {shown}")


def test_what_did_not_end_well_stands_out() -> None:
    file = io.BytesIO()
    failed = {"kind": EventKind.CONNECT, "error": -111}
    Connections(file, color=True).write(Batch([connections(CLOSE, failed)], 0))
    _, well, badly = file.getvalue().decode("ascii").splitlines()
    assert "\x1b" not in well
    assert badly.endswith("\x1b[31mECONNREFUSED, 1 SYN\x1b[0m")


def test_what_is_unknown_is_a_dash() -> None:
    (_, line) = table({"kind": EventKind.CLOSE})
    assert line.split()[1] == "-"
    assert line.count(" - ") == 3  # process, duration, rtt


def test_only_ends_of_connections_are_chosen() -> None:
    part = connections(
        {"kind": EventKind.CONNECT, "new_state": STATES.index("ESTABLISHED")},
        {"kind": EventKind.CONNECT, "new_state": STATES.index("CLOSE"), "error": -111},
        CLOSE,
    )
    assert ended(Batch([part], 5))["kind"].tolist() == ["connect", "close"]
    assert ended(Batch([part], 5)).clock_offset_ns == 5
    assert len(ended(Batch([]))) == 0


def test_sends_are_not_shown() -> None:
    batch = Batch([messages({}), losses({}), segments({"kind": EventKind.PROBE})], 5)
    assert without_reasons(batch)["kind"].tolist() == ["retransmit", "probe"]
    assert without_reasons(batch).clock_offset_ns == 5


def summary(*parts: Part) -> list[str]:
    """Return the sums."""
    sums = io.StringIO()
    sink = RetransmitSummary(sums)
    sink.write(Batch(parts, 0))
    assert sums.getvalue() == ""
    sink.close()
    return sums.getvalue().splitlines()


def again(cause: Cause, segs: int, peer: str, comm: bytes, **fields: Any) -> Fields:
    owner = {"pid": 7, "comm": comm} if comm else {}
    return {
        **owner, "cause": cause, "segs": segs, "bytes": segs * 100, "remote_ip": peer, **fields
    }  # fmt: skip


def test_sums_by_cause_peer_and_owner() -> None:
    part = losses(
        again(Cause.RTO, 1, "192.0.2.1", b"curl"),
        again(Cause.FAST, 5, "192.0.2.1", b"nginx"),
        again(Cause.FAST, 2, "192.0.2.2", b""),
        again(Cause.FAST, 9, "192.0.2.3", b"failed", error=-113),
        {"kind": EventKind.UNDO, "undone": 2},
        {"kind": EventKind.UNDO, "undone": 1},
        {"kind": EventKind.DROP, "segs": 1, "bytes": 44, "reason": 6},
        {"kind": EventKind.DROP, "segs": 1, "bytes": 100, "reason": 7},
        {"kind": EventKind.DROP, "segs": 1, "bytes": 0, "reason": 8},
    )
    reasons = {6: "NETFILTER_DROP", 7: "TCP_OLD_DATA", 8: "TCP_OLD_ACK"}
    named = Part(part.rows, context=Context(drop_reason=reasons.get))
    sums = summary(named, messages({}))
    assert [line.split() for line in sums] == [
        ["sent", "again,", "by", "cause", "segments", "bytes"],
        ["fast", "7", "700"],
        ["rto", "1", "100"],
        ["spurious", "(undone)", "3"],
        ["spurious", "(had", "already", "arrived)", "1", "100"],
        ["sent", "again,", "by", "peer", "segments", "bytes"],
        ["192.0.2.1", "6", "600"],
        ["192.0.2.2", "2", "200"],
        ["sent", "again,", "by", "owner", "segments", "bytes"],
        ["nginx[7]", "5", "500"],
        ["-", "2", "200"],
        ["curl[7]", "1", "100"],
        ["dropped", "on", "this", "host,", "by", "reason", "segments", "bytes"],
        ["NETFILTER_DROP", "1", "44"],
    ]


def test_nothing_sent_again_has_no_sums() -> None:
    assert summary(messages({})) == ["nothing was sent again"]


def test_only_the_largest_are_shown() -> None:
    part = losses(*(again(Cause.RTO, 1 + n, f"192.0.2.{n}", b"curl") for n in range(12)))
    sums = summary(part)
    peers = [line.split()[0] for line in sums if line.startswith("  192.0.2.")]
    assert peers == [f"192.0.2.{n}" for n in range(11, 1, -1)]
    assert "  ... and 2 more" in sums


def test_a_flood_of_peers_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retransmit_summary, "KEYS_MAX", 2)
    part = losses(*(again(Cause.SYN_ACK, 1, f"192.0.2.{n}", b"curl") for n in range(5)))
    sums = summary(part)
    assert "others" in [line.split()[0] for line in sums if line.split()[1] == "3"]
