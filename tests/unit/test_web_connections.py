"""Which connection an event of the page is of, and which are forgotten."""

from __future__ import annotations

from typing import Any

import pytest

from tcprism.events import Batch, Part
from tcprism.events._wire import EventKind
from tcprism.events.names import STATES, TcpFlag
from tcprism.web.store import Store
from tcprism.web.views import NotFound, Views

from .asked import CLIENT, MS, SERVER
from .records import connections, losses, messages, requests, segments
from .session import START

ESTABLISHED = STATES.index("ESTABLISHED")
MEMORY = 64 << 20


def store_of(*batches: list[Part]) -> Store:
    store = Store(MEMORY)
    for parts in batches:
        store.write(Batch(parts))
    return store


def lived(socket: int, first: int, last: int) -> list[Part]:
    """Return how a client's socket opened and closed, with what it sent; the server is not seen."""
    of = {**CLIENT, "socket": socket}
    opened = {"kind": EventKind.CONNECT, "elapsed_ns": MS, "new_state": ESTABLISHED}
    return [
        connections(
            {**of, **opened, "ts_ns": START + first + MS},
            {**of, "kind": EventKind.CLOSE, "ts_ns": START + last},
        ),
        messages({**of, "kind": EventKind.SEND, "ts_ns": START + first + 2 * MS, "bytes": socket}),
    ]


def drop(at: int, **fields: Any) -> Part:
    told = {**SERVER, "kind": EventKind.DROP, "ts_ns": START + at, "socket": 77}
    return losses({**told, "flags": TcpFlag.ACK, **fields})


def of(store: Store, kind: EventKind) -> list[list[int]]:
    """Return when events of a kind happened, for each connection."""
    return [
        [
            int(moment) - START
            for part, _ in store.of(place)
            for moment in part.rows["ts_ns"][part.rows["kind"] == kind]
        ]
        for place in range(len(store.connections))
    ]


def test_a_drop_is_of_the_connection_during_which_it_happened() -> None:
    """The ports are used twice; a drop has the listener's socket, or none."""
    first, second = lived(1, 0, 100 * MS), lived(2, 200 * MS, 300 * MS)
    drops = [drop(50 * MS), drop(150 * MS), drop(250 * MS), drop(350 * MS)]
    one_batch = store_of([*first, *second, *drops])
    as_they_came = store_of(first, second, *([each] for each in drops))
    for store in (one_batch, as_they_came):
        # Between the two it may be of either; after both it is of the second, or of nobody known.
        assert of(store, EventKind.DROP) == [[50 * MS], [250 * MS, 350 * MS]]
        assert store.connections.table["drops"].tolist() == [1, 2]
        assert sum(store.overview.series(START)["drops"]) == 4


def test_a_syn_begins_a_connection_where_the_one_before_is_over() -> None:
    """Its SYN-ACK has the listener's socket, and its own events come after."""
    syn = {**CLIENT, "flags": TcpFlag.SYN, "socket": 2, "kind": EventKind.TRANSMIT}
    answer = {**SERVER, "flags": TcpFlag.SYN | TcpFlag.ACK, "socket": 77}
    answer |= {"kind": EventKind.TRANSMIT}
    ack = {**CLIENT, "flags": TcpFlag.ACK, "socket": 2, "kind": EventKind.TRANSMIT}
    handshake = segments(
        {**syn, "seq": 5000, "ts_ns": START + 200 * MS},
        {**syn, "seq": 5000, "ts_ns": START + 201 * MS},  # sent again
        {**answer, "seq": 9000, "ts_ns": START + 202 * MS},
        {**ack, "seq": 5001, "ts_ns": START + 203 * MS},
    )
    expected = [[], [at * MS for at in (200, 201, 202, 203)]]
    later, one = lived(2, 200 * MS, 300 * MS), lived(1, 0, 100 * MS)
    assert of(store_of(one, [handshake], later), EventKind.TRANSMIT) == expected
    assert of(store_of([*one, *later, handshake]), EventKind.TRANSMIT) == expected
    assert store_of(one, [handshake], later).connections.table["written"].tolist() == [
        [1, 0], [2, 0],
    ]  # fmt: skip


def test_syns_of_two_connections_in_one_batch() -> None:
    """Only their segments are seen: another sequence number is another connection."""
    syn = {**CLIENT, "flags": TcpFlag.SYN, "kind": EventKind.TRANSMIT}
    seen = {**SERVER, "flags": TcpFlag.SYN, "kind": EventKind.RECEIVE}  # the same, at the peer
    store = store_of(
        [
            segments(
                {**syn, "seq": 5000, "ts_ns": START},
                {**seen, "seq": 5000, "ts_ns": START + 1},
                {**syn, "seq": 6000, "ts_ns": START + MS},
                {**seen, "seq": 6000, "ts_ns": START + MS + 1},
            )
        ]
    )
    assert of(store, EventKind.TRANSMIT) == [[0], [MS]]
    assert of(store, EventKind.RECEIVE) == [[1], [MS + 1]]


@pytest.mark.parametrize("room", [20, 200])
def test_connections_that_were_silent_longest_are_forgotten(room: int) -> None:
    """What is kept keeps its number, its events and its requests; the rest is counted."""
    store = Store(room * 8 * 1000)
    count = 4 * room
    for number in range(count):
        port = 10_000 + number
        one = {**CLIENT, "local_port": port, "socket": number + 1, "ts_ns": START + number}
        always = {**CLIENT, "socket": 9_999, "ts_ns": START + number, "bytes": 1}
        asked = {**one, "start_ts_ns": START + number, "socket": 0, "request_ns": number}
        store.write(
            Batch(
                [
                    messages({**one, "bytes": number + 1, "kind": EventKind.SEND}, always),
                    requests(asked),
                ]
            )
        )
    views = Views(store, "made", live=False)
    rows = views.answer("connections", {"sort": "first", "count": "500"})["rows"]
    assert 0.7 * room < len(rows) <= room
    assert len(rows) + store.connections.forgotten == count + 1
    assert not store.connections.refused
    (remark,) = store.dropped().remarks
    assert remark == f"{count + 1 - len(rows):,} connections were forgotten for lack of memory"
    by_port = {int(row["ends"][0].rpartition(":")[2]): row for row in rows}
    assert by_port.pop(45_678)["written"] == [count, 0]  # it was never silent
    latest = range(count - len(by_port), count)
    assert sorted(by_port) == [10_000 + number for number in latest]
    for number in latest:
        row = by_port[10_000 + number]
        assert row["written"] == [number + 1, 0]
        text = f"connection:{row['n']}"
        (found,) = views.answer("requests", {"filter": text})["rows"]
        assert (found["took"], found["connection"]) == (number, row["n"])
        axis = views.answer("connection", {"n": str(row["n"])})
        # Events are forgotten on their own account.
        assert [mark["bytes"] for mark in axis["marks"]] in ([number + 1], [])
    assert axis["marks"]
    with pytest.raises(NotFound, match="no connection 0, or it was forgotten"):
        views.answer("connection", {"n": "0"})
    gone = views.answer("requests", {"sort": "start", "count": "1"})["rows"]
    assert gone[0]["connection"] is None


def test_texts_of_requests_are_forgotten_with_them() -> None:
    store = Store(2 * 500 * 40)
    for number in range(400):
        fields = {"ts_ns": START + number, "start_ts_ns": START + number}
        store.write(Batch([requests({**fields, "protocol": f"p{number}".encode()})]))
    assert len(store.requests.whats) == len(store.requests) <= 40
    views = Views(store, "made", live=False)
    assert views.answer("requests", {"filter": "p399"})["found"] == 1
    assert views.answer("requests", {"filter": "p3"})["found"] == len(store.requests)
