"""What the page is told: rows, windows, marks, and whom the server refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest

import tcprism
from tcprism.errors import UsageError
from tcprism.events import Batch
from tcprism.events._wire import Cause, EventKind
from tcprism.recording.reader import Recording
from tcprism.stages.requests import Requests
from tcprism.web.marks import MARKS_MAX
from tcprism.web.requests import Requests as WebRequests
from tcprism.web.server import POLICY
from tcprism.web.store import Store
from tcprism.web.views import NotFound, Views

from .asked import CLIENT, COUNT, MS, SERVER, SERVER_MS, asked
from .page import answer, cookie_of, viewed
from .recordings import written
from .records import connections, losses, messages, segments
from .records import requests as request_records
from .session import CLOCK_OFFSET, START

pytest.importorskip("uvicorn")
pytest.importorskip("starlette")

MEMORY = 64 << 20
SAMPLE = Path(tcprism.__file__).with_name("sample.tcpr")


def filled(batches: list[Batch], memory: int = MEMORY) -> Views:
    store, stage = Store(memory), Requests()
    for batch in batches:
        store.write(stage(batch))
    store.write(stage.tick(0))
    store.write(stage.tick(0))
    store.write(stage.close())
    store.end()
    return Views(store, "a recording", live=False)


@pytest.fixture(scope="module")
def views() -> Views:
    return filled(asked())


def numbers(found: dict[str, Any]) -> list[int]:
    return [row["n"] for row in found["rows"]]


def test_each_request_is_a_row_with_what_happened_to_it(views: Views) -> None:
    found = views.answer("requests", {"sort": "start"})
    assert found["total"] == found["found"] == COUNT + 1
    for number, (row, server_ms) in enumerate(zip(found["rows"], SERVER_MS, strict=False), 1):
        assert row["what"] == f"http GET /item/{number}"
        assert row["took"] == (server_ms + 3) * MS
        assert row["split"]["server"] == server_ms * MS
        assert row["start"] == (number - 1) * 500 * MS  # since the first event
        assert row["failed"] == (number == 5)
        assert row["retransmissions"] == (number == 5)
        assert (row["client"], row["server"]) == ("curl[812]", "nginx[431]")
    assert found["rows"][-1]["what"] == "http GET /never"
    assert found["rows"][-1]["state"] == "partial" or found["rows"][-1]["status"] is None


@pytest.mark.parametrize(
    ("text", "which"),
    [
        ("", range(1, COUNT + 2)),
        ("item/3", [3]),
        ("GET CURL 192.0.2.20:80 item/3", [3]),
        ("failed", [5]),
        ("503", [5]),
        ("repeated", [5]),
        ("slow", [3]),
        ("took>73ms -never", [3, 8, 9]),
        ("took<0.02s -never", [1]),
        ("-item/3 -failed -never took>72.9ms", [7, 8, 9]),
        ("retransmissions>0", [5]),
        ("connection:0", range(1, COUNT + 2)),
        ("connection:1", []),
        ("no-such-word", []),
        ("took>1parsec", []),
    ],
)
def test_a_filter_chooses_rows(views: Views, text: str, which: list[int]) -> None:
    found = views.answer("requests", {"filter": text, "sort": "start"})
    paths = [row["what"].rpartition("/")[2] for row in found["rows"]]
    assert paths == ["never" if number > COUNT else str(number) for number in which]


def test_a_window_of_rows_in_any_order(views: Views) -> None:
    slowest = views.answer("requests", {"sort": "-took", "first": "1", "count": "2"})
    assert [row["took"] // MS for row in slowest["rows"]] == [93, 83]
    assert slowest["found"] == COUNT + 1
    assert numbers(views.answer("requests", {"first": "1000"})) == []
    between = {"since": str(500 * MS), "until": str(1000 * MS), "sort": "start"}
    assert [row["what"] for row in views.answer("requests", between)["rows"]] == [
        "http GET /item/2", "http GET /item/3"
    ]  # fmt: skip


@pytest.mark.parametrize(
    "query",
    [{"sort": "x"}, {"first": "a"}, {"count": "1e9"}, {"since": "9" * 30}, {"first": "\u0663"}],
)
def test_what_makes_no_sense_is_one_sentence(views: Views, query: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=next(iter(query))):
        views.answer("requests", query)


def test_both_ends_are_one_connection(views: Views) -> None:
    found = views.answer("connections", {})
    assert found["total"] == 1
    (row,) = found["rows"]
    assert row["ends"] == ["192.0.2.10:45678", "192.0.2.20:80"]
    assert row["owners"] == ["curl[812]", "nginx[431]"]
    sent = sum(
        int(part.rows["bytes"][part.rows["kind"] == EventKind.SEND].sum())
        for batch in asked()
        for part in batch.parts
        if part.family == "message"
    )
    assert sum(row["written"]) == sent
    assert row["retransmissions"] == row["causes"]["tlp"] == 1
    assert (row["requests"], row["failures"]) == (COUNT + 1, 1)


def test_a_request_has_the_marks_of_its_own_bytes(views: Views) -> None:
    (fifth,) = views.answer("requests", {"filter": "failed"})["rows"]
    found = views.answer("request", {"n": str(fifth["n"])})
    own = [(mark["kind"], mark["side"]) for mark in found["marks"] if mark["own"]]
    assert own == [
        ("send", 0), ("recv", 1), ("acked", 0), ("send", 1), ("retransmit", 1), ("recv", 0)
    ]  # fmt: skip
    (again,) = (mark for mark in found["marks"] if mark["kind"] == "retransmit")
    assert "tail loss probe" in again["text"]
    assert found["marks"][0]["payload"].startswith("GET /item/5 ")
    zoomed = {"n": str(fifth["n"]), "since": str(again["t"]), "until": str(again["t"])}
    assert [mark["kind"] for mark in views.answer("request", zoomed)["marks"]] == ["retransmit"]


def test_there_is_no_such_request(views: Views) -> None:
    with pytest.raises(NotFound):
        views.answer("request", {"n": str(COUNT + 1)})
    with pytest.raises(UsageError):
        views.answer("connection", {"n": "-"})


def test_ports_that_are_used_again_are_another_connection() -> None:
    events = []
    for number in range(3):
        at = START + number * 10 * MS
        one, other = {**CLIENT, "socket": 10 + number}, {**SERVER, "socket": 20 + number}
        events += [
            {**one, "kind": EventKind.SEND, "ts_ns": at, "bytes": 10 + number},
            {**other, "kind": EventKind.RECV, "ts_ns": at + MS, "bytes": 10 + number},
        ]
    # The listener's socket sends the second segment of a handshake.
    shakes = segments({**SERVER, "socket": 99, "ts_ns": START + 20 * MS, "pid": 0})
    found = filled([Batch([shakes, messages(*events)], CLOCK_OFFSET)])
    rows = found.answer("connections", {"sort": "first"})["rows"]
    assert [sorted(row["written"]) for row in rows] == [[0, 10], [0, 11], [0, 12]]
    assert [sorted(row["read"]) for row in rows] == [[0, 10], [0, 11], [0, 12]]


def test_loopbacks_of_two_namespaces_are_two_connections() -> None:
    """Both use the same addresses and ports at the same time."""
    events: list[dict[str, Any]] = []
    for netns in (7, 8):
        home = {"local_ip": "127.0.0.1", "remote_ip": "127.0.0.1", "netns": netns}
        one = {**CLIENT, **home, "socket": netns, "kind": EventKind.SEND}
        other = {**SERVER, **home, "socket": 10 * netns, "kind": EventKind.RECV}
        events += [
            {**one, "ts_ns": START + netns, "bytes": netns},
            {**other, "ts_ns": START + 100 + netns, "bytes": netns},
        ]
    events.sort(key=lambda event: event["ts_ns"])
    found = filled([Batch([messages(*events)], CLOCK_OFFSET)])
    rows = found.answer("connections", {"sort": "first"})["rows"]
    assert [sorted(row["written"]) for row in rows] == [[0, 7], [0, 8]]
    assert [sorted(row["read"]) for row in rows] == [[0, 7], [0, 8]]


def test_who_asked_for_a_connection_is_its_client() -> None:
    made = connections({**SERVER, "socket": 5, "kind": EventKind.ACCEPT, "ts_ns": START})
    (row,) = filled([Batch([made], CLOCK_OFFSET)]).answer("connections", {})["rows"]
    assert row["client_known"]
    assert row["ends"] == ["192.0.2.10:45678", "192.0.2.20:80"]


def test_too_many_marks_are_thinned_and_counted() -> None:
    count = 2 * MARKS_MAX
    events = [
        {**CLIENT, "kind": EventKind.SEND, "ts_ns": START + n, "bytes": 1} for n in range(count)
    ]
    events.append({**CLIENT, "kind": EventKind.RECV, "ts_ns": START + count, "bytes": 0})
    found = filled([Batch([messages(*events)], CLOCK_OFFSET)]).answer("connection", {"n": "0"})
    assert 0 < len(found["marks"]) <= MARKS_MAX
    assert len(found["marks"]) + found["left_out"] == count + 1
    narrow = {"n": "0", "since": "0", "until": "99"}
    assert (
        len(
            filled([Batch([messages(*events)], CLOCK_OFFSET)]).answer("connection", narrow)["marks"]
        )
        == 100
    )


def test_time_is_cut_into_buckets_that_lose_nothing() -> None:
    """The sums over time are those of the records, however wide the buckets have become."""
    for spread in (1, 997):  # of ten milliseconds: within the buckets, and far beyond
        events = [
            {**CLIENT, "kind": EventKind.SEND, "ts_ns": START + n * spread * 10 * MS, "bytes": n}
            for n in range(300)
        ]
        lost = losses({**CLIENT, "ts_ns": START + spread * MS, "segs": 3, "cause": Cause.RTO})
        answer = filled([Batch([messages(*events), lost], CLOCK_OFFSET)]).answer("overview", {})
        series = answer["series"]
        assert sum(series["sent"]) * series["width"] / 1e9 == pytest.approx(sum(range(300)))
        assert sum(series["causes"]["rto"]) == 3
        assert len(series["t"]) <= 240
        assert series["t"][-1] <= 299 * spread * 10 * MS < series["t"][-1] + series["width"]


def test_who_is_hurt(views: Views) -> None:
    answer = views.answer("overview", {})
    assert answer["slowest"][0]["what"] in ("http GET /item/3", "http GET /never")
    assert [row["n"] for row in answer["repeated"]] == [0]
    assert [row["what"] for row in answer["pending"]] == ["http GET /never"]
    (edge,) = views.answer("map", {})["edges"]
    assert (edge["connections"], edge["retransmissions"]) == (1, 1)
    assert (edge["requests"], edge["failures"]) == (COUNT + 1, 1)


def test_nothing_is_said_of_what_waits_before_the_end() -> None:
    store = Store(MEMORY)
    stage = Requests()
    for batch in asked():
        store.write(stage(batch))
    assert Views(store, "live", live=True).answer("overview", {})["pending"] is None


def test_explain_says_what_the_command_says(tmp_path: Path) -> None:
    """The store explains the events that it keeps; `explain` reads the file."""
    store = Store(MEMORY)
    for batch in Recording(SAMPLE).batches():
        store.write(batch)
    told = Views(store, "sample", live=False).answer("explain", {})
    found = tcprism.explain(SAMPLE)
    assert told["total"] == len(found)
    proofs = {(one.heading, verdict.proof) for one in found for verdict in one.verdicts}
    assert proofs
    assert proofs == {
        (one["heading"], verdict["proof"])
        for one in told["connections"]
        for verdict in one["verdicts"]
    }


def test_the_latest_requests_stay_and_keep_their_numbers() -> None:
    requests = WebRequests(10)
    for first in range(0, 30, 3):
        part = request_records(
            *({"ts_ns": START + n, "start_ts_ns": START + n} for n in range(first, first + 3))
        )
        requests.add(part, np.zeros(len(part), np.intp))
        assert 0 < len(requests) <= 10
        assert requests.forgotten + len(requests) == first + 3
        latest = requests.rows([len(requests) - 1])[0]
        assert (latest["n"], latest["start"]) == (first + 2, START + first + 2)
    many = request_records(*({"ts_ns": START + n} for n in range(25)))
    requests.add(many, np.zeros(25, np.intp))
    assert (requests.forgotten, len(requests)) == (45, 10)


def test_what_memory_does_not_hold_is_counted() -> None:
    batch = messages(*({**CLIENT, "ts_ns": START + n, "bytes": 1} for n in range(1000)))
    views = filled([Batch([batch], CLOCK_OFFSET)] * 4, memory=1 << 20)
    summary = views.answer("summary", {})
    kept = sum(len(part) for part, _ in views.store.of(0))
    assert summary["forgotten"] > 0
    assert kept + summary["forgotten"] == summary["events"] == 4000


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    path = written(tmp_path_factory.mktemp("web") / "asked.tcpr", asked())
    with viewed(str(path)) as found:
        yield found


@pytest.mark.parametrize("path", ["/", "/static/main.js", "/api/summary", "/api/changes"])
def test_nobody_looks_without_the_token(url: str, path: str) -> None:
    port = url.rpartition("/?")[0].rpartition(":")[2]
    for cookie in ("", f"tcprism-{port}=", f"tcprism-{port}=wrong", "tcprism-1=\u00e9"):
        response, body = answer(url, path, cookie)
        assert response.status == 403
        assert body == b"tcprism: this needs the address that tcprism printed, with its token\n"
    assert answer(url, "/?token=wrong")[0].status == 403
    assert answer(url, "/?" + urlencode({"token": "\u00fc"}))[0].status == 403


def test_who_has_the_token_gets_a_cookie_that_scripts_do_not_see(url: str) -> None:
    response, _ = answer(url, "/?" + url.partition("?")[2])
    assert response.status == 303
    assert response.headers["Location"] == "/"
    assert {"HttpOnly", "SameSite=strict"} <= {*response.headers["Set-Cookie"].split("; ")}
    page, body = answer(url, "/", cookie_of(url))
    assert page.status == 200
    assert b"<script>" not in body
    assert b"style=" not in body
    for told in (page, response):
        assert told.headers["Content-Security-Policy"] == POLICY
        assert told.headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/static/main.js", 200),
        ("/static/..%2fserver.py", 404),
        ("/static/__init__.py", 404),
        ("/api/summary", 200),
        ("/api/nothing", 404),
        ("/api/request?n=99", 404),
        ("/api/request?n=x", 400),
    ],
)
def test_paths(url: str, path: str, status: int) -> None:
    response, body = answer(url, path, cookie_of(url))
    assert response.status == status
    if "/api" in path and status != 200:
        assert json.loads(body)["error"]


def test_numbers_are_exact_in_javascript(views: Views) -> None:
    """JavaScript's are floats: the clock of a machine that ran for 105 days does not fit."""

    def walk(value: Any) -> Iterator[Any]:
        if isinstance(value, dict | list):
            for inner in value.values() if isinstance(value, dict) else value:
                yield from walk(inner)
        else:
            yield value

    long_ago = filled([_later(batch, 1 << 62) for batch in asked()])
    for name in ("requests", "connections"):
        told = [one for one in walk(long_ago.answer(name, {})) if isinstance(one, int)]
        assert told
        assert max(map(abs, told)) < 2**53


def _later(batch: Batch, by: int) -> Batch:
    parts = []
    for part in batch.parts:
        moved = part.take(np.arange(len(part)))
        moved.rows["ts_ns"] += np.uint64(by)
        parts.append(moved)
    return Batch(parts, batch.clock_offset_ns - by)


def test_an_address_that_makes_no_sense(tmp_path: Path) -> None:
    from tcprism.cli.view import parse_listen

    assert parse_listen("[::1]:80") == ("::1", 80)
    for text in ("127.0.0.1", ":80", "a:b", "a:99999", "a:-1"):
        with pytest.raises(UsageError, match="--listen"):
            parse_listen(text)
