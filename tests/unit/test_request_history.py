"""Requests in `top`: routes, their latest and slowest, what waits, and the events of one."""

import numpy as np
import pytest

from tcprism.diagnosis import request_history
from tcprism.diagnosis.event_history import EventHistory
from tcprism.diagnosis.request_history import RequestHistory, concerns, proved
from tcprism.diagnosis.table import advance, empty
from tcprism.events import Part
from tcprism.events._wire import EventKind
from tcprism.events.columns import BY_NAME
from tcprism.sinks.request_summary import ACCURACY, Group, grouped

from .asked import CLIENT, COUNT, MS, SERVER, asked
from .records import Fields, losses, segments, snapshots
from .records import requests as request_records

PEERS = {name: CLIENT[name] for name in ("local_ip", "local_port", "remote_ip", "remote_port")}
ROUTE = "http GET /item/?"


@pytest.fixture
def history() -> RequestHistory:
    pytest.importorskip("ddsketch")
    history = RequestHistory()
    for batch in asked():
        history.add(batch)
    return history


def fifth(history: RequestHistory) -> Part:
    latest = history.routes[ROUTE].latest
    assert latest
    return latest.take(slice(COUNT - 5, COUNT - 4))


def test_routes_have_sums_and_the_latest_and_slowest(history: RequestHistory) -> None:
    assert [*history.routes] == [ROUTE]
    route = history.routes[ROUTE]
    cells = list(route.sums.cells(3.0))
    assert cells[:3] == [str(COUNT), "1", "3.0"]
    assert cells[-3:] == ["98 ms", "1", "server"]
    for part, numbers in ((route.latest, (9, 8, 7)), (route.slowest, (3, 9, 8))):
        assert part
        assert len(part) == COUNT
        paths = BY_NAME["resource"].to_list(part)[:3]
        assert paths == [f"/item/{number}" for number in numbers]


def test_what_is_kept_is_bounded(history: RequestHistory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_history, "KEPT", 3)
    monkeypatch.setattr(request_history, "ROUTES_MAX", 2)
    rows = [{"ts_ns": 10**15 + n, "request_ns": 10**12 - n, "protocol": b"a"} for n in range(5)]
    names, blank = np.ma.MaskedArray([[*"xyzxy"], [None] * 5], [[False] * 5, [True] * 5], object)
    part = request_records(*rows).derive(
        method=names, resource=blank, status=blank, retransmission_causes=blank
    )
    for name, which in grouped(part, "route"):
        history._route(name).add(part.take(which))
    assert set(history.routes) == {ROUTE, "a x", "others"}
    others = history.routes["others"]
    assert others.latest
    assert others.slowest
    assert others.latest.rows["ts_ns"].tolist() == [10**15 + n for n in (4, 2, 1)]
    assert others.slowest.rows["request_ns"].tolist() == [10**12 - n for n in (1, 2, 4)]


def test_pending_requests_stay_pending(history: RequestHistory) -> None:
    for _ in range(2):
        waiting = history.pending()
        assert waiting
        assert BY_NAME["resource"].to_list(waiting) == ["/never"]
        assert BY_NAME["waiting_for"].to_list(waiting) == ["response"]


@pytest.mark.parametrize(
    ("after_ns", "unacked", "server", "expected"),
    [
        (1, 33, 0, "acknowledgement"),
        (1, 0, 0, "response"),
        (1, 0, 431, "the server to read it"),
        (-1, 33, 0, None),
    ],
)
def test_a_wait_for_an_acknowledgement_is_shown_with_proof(
    after_ns: int, unacked: int, server: int, expected: str | None
) -> None:
    at = 10**15
    given = {"start_ts_ns": at, "waiting_for": 1, "server_pid": server}
    waiting = request_records({**PEERS, **given})
    look = snapshots({**PEERS, "ts_ns": at + after_ns, "inode": 5, "unacked": unacked})
    for table, found in ((advance(None, look), expected), (empty(), None)):
        assert BY_NAME["waiting_for"].to_list(proved(waiting, table)) == [found]
    assert BY_NAME["waiting_for"].to_list(waiting) == ["acknowledgement"]


def test_the_events_of_a_request_are_its_own(history: RequestHistory) -> None:
    row = fifth(history).rows[0]
    found = EventHistory(lambda part: concerns(row, part))
    for batch in asked():
        found.add(batch)
    (batch,) = found.batches()
    assert batch["kind"].tolist() == [
        "send",
        "recv",
        "acked",
        "send",
        "retransmit",
        "recv",
    ]


def test_the_segments_of_a_request_are_its_own(history: RequestHistory) -> None:
    """Those that carry its bytes and its response's, and those that only acknowledge them."""
    row = fifth(history).rows[0]
    asks, answers = int(row["seq"]), int(row["response_seq"])
    size, back = int(row["request_bytes"]), int(row["response_bytes"])
    at = {"ts_ns": int(row["start_ts_ns"])}
    sent, arrived = {"kind": EventKind.TRANSMIT}, {"kind": EventKind.RECEIVE}
    request, response = {"seq": asks, "bytes": size}, {"seq": answers, "bytes": back}
    its: list[Fields] = [
        {**CLIENT, **at, **sent, **request, "ack": answers},
        {**SERVER, **at, **arrived, **request, "ack": answers},
        {**SERVER, **at, **sent, "seq": answers, "ack": asks + size},
        {**CLIENT, **at, **arrived, "seq": answers, "ack": asks + size},
        {**SERVER, **at, **sent, **response, "ack": asks + size},
        {**CLIENT, **at, **sent, "seq": asks + size, "ack": answers + back},
    ]
    others: list[Fields] = [
        {**CLIENT, **at, **sent, "seq": asks, "ack": answers},  # acknowledges what was before
        {**CLIENT, **at, **sent, **request, "seq": asks - size, "ack": answers},
        {**CLIENT, **at, **sent, **request, "seq": asks + size, "ack": answers + back},
        {**CLIENT, **at, **sent, **request, "local_port": 1},
        {**SERVER, **at, **sent, **request},  # the other direction
        {**its[0], "ts_ns": 1},
    ]
    assert concerns(row, segments(*its, *others)).tolist() == [True] * 6 + [False] * 6
    probe, drop = {"kind": EventKind.PROBE}, {"kind": EventKind.DROP}
    assert concerns(row, segments({**its[0], **probe}, {**its[4], **probe})).all()
    lost = [
        {**SERVER, **at, **drop, **request, "outgoing": 0},
        {**CLIENT, **at, **drop, **request, "outgoing": 1},
        {**SERVER, **at, **drop, **request, "outgoing": 1},  # the other direction
    ]
    assert concerns(row, losses(*lost)).tolist() == [True, True, False]


def test_events_are_forgotten_when_they_take_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tcprism.diagnosis.event_history.MEMORY", 20_000)
    history = EventHistory()
    for batch in asked():
        history.add(batch)
    assert 0 < len(history) < 20
    assert history.forgotten + len(history) == sum(map(len, asked()))


def test_bytes_that_are_not_known_are_nobodys() -> None:
    row = request_records({"request_bytes": 2**64 - 1, "response_bytes": 2**64 - 1}).rows[0]
    for name in ("local_ip", "remote_ip", "local_port", "remote_port", "seq"):
        row[name] = asked()[0].parts[0].rows[0][name]
    row["ts_ns"] = 2**63
    assert not any(concerns(row, part).any() for part in asked()[0].parts)
    row["request_bytes"] = 1
    assert any(concerns(row, part).any() for part in asked()[0].parts)


@pytest.mark.parametrize(
    ("took_ms", "expected"),
    [
        ([7], ["7 ms", "7 ms", "7 ms", "7 ms"]),
        ([1, 100], ["1 ms", "100 ms", "100 ms", "100 ms"]),
        ([10, 20, 30], ["20 ms", "30 ms", "30 ms", "30 ms"]),
        ([*range(1, 11)], ["5 ms", "9 ms", "10 ms", "10 ms"]),
    ],
)
def test_percentiles_of_few_requests_are_of_the_nearest_rank(
    took_ms: list[int], expected: list[str]
) -> None:
    """As the standard has them: the smallest time that so many did not exceed."""
    sketch = pytest.importorskip("ddsketch").DDSketch
    group = Group(sketch(ACCURACY))
    group.add(request_records(*({"request_ns": ms * MS} for ms in took_ms)).rows)
    *_, p50, p90, p99, most, _, _ = group.cells(1.0)
    for shown, wanted in zip((p50, p90, p99, most), expected, strict=True):
        value, unit = shown.split()
        assert float(value) == pytest.approx(float(wanted.split()[0]), rel=0.011)
        assert unit == "ms"
