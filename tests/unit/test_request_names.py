"""Names of requests for packets: which begin in one, which bytes one repeats, and until when."""

import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from tcprism.events import Batch, Part
from tcprism.events._wire import Cause, EventKind
from tcprism.events.requests import NAMES, Said
from tcprism.sinks.pcapng import Pcapng
from tcprism.stages import request_names
from tcprism.stages.request_names import HOLD_NS, RequestNames
from tests.support.tshark import fields, wrong

from .asked import CLIENT, MS, RESPONSE, SERVER, asked
from .recordings import batches
from .records import losses, messages, segments
from .session import CLOCK_OFFSET, START

GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
LENGTH = len(GET)


def named(*made: Batch) -> list[Part]:
    """Return all parts with their names."""
    stage = RequestNames()
    return [part for batch in (*map(stage, made), stage.close()) for part in batch.parts]


def said(part: Part) -> list[Any]:
    names: list[Any] = part.derived[NAMES].tolist()
    return names


def once(*requests: bytes, at: int = 1) -> Batch:
    """Return requests that the client sends in one call and the server answers."""
    events = [{**CLIENT, "kind": EventKind.SEND, "payload": b"".join(requests), "seq": 1000}]
    back = 5000
    for _ in requests:
        events.append({**SERVER, "kind": EventKind.SEND, "payload": RESPONSE, "seq": back})
        back += len(RESPONSE)
    moments = (START + (at + place) * MS for place in range(len(events)))
    return Batch(
        [messages(*({**e, "ts_ns": t} for e, t in zip(events, moments, strict=True)),
                  payload_class=1024)], CLOCK_OFFSET
    )  # fmt: skip


def sent(at: float, seq: int, size: int, **more: Any) -> dict[str, Any]:
    return {**CLIENT, "ts_ns": START + int(at * MS), "seq": seq, "bytes": size, "segs": 1} | more


def test_each_message_says_what_begins_in_it() -> None:
    (part,) = named(once(GET, GET))
    first, second = (f"http GET /a (request {number})" for number in (1, 2))
    assert said(part) == [
        (Said(0, LENGTH, first), Said(LENGTH, 2 * LENGTH, second)),
        (Said(0, len(RESPONSE), f"the response to {first}: 200"),),
        (Said(0, len(RESPONSE), f"the response to {second}: 200"),),
    ]


def test_a_segment_that_left_before_its_call_returned_is_named() -> None:
    """It comes in a batch before the message."""
    early = Batch([segments(sent(0.5, 1000, LENGTH))], CLOCK_OFFSET)
    stage = RequestNames()
    stage(once(b"", at=-5))  # there is payload, as in a trace
    assert not len(stage(early))
    stage(once(GET))
    parts = [part for part in stage.close().parts if part.family == "segment"]
    assert said(parts[0]) == [(Said(0, LENGTH, "http GET /a (request 1)"),)]


def test_what_arrives_carries_the_other_ends_bytes() -> None:
    """A drop on its way in, and on its way out; a segment that arrives."""
    dropped = {"kind": EventKind.DROP, "outgoing": 0}
    lost = losses(
        {**SERVER, **at_client(1), **dropped}, {**CLIENT, **at_client(1), **dropped, "outgoing": 1}
    )
    came = segments({**SERVER, **at_client(1), "kind": EventKind.RECEIVE})
    *_, drops, received = named(Batch([*once(GET).parts, lost, came], CLOCK_OFFSET))
    its = (Said(0, LENGTH, "http GET /a (request 1)"),)
    assert said(drops) == [its, its]
    assert said(received) == [its]


def at_client(at: float) -> dict[str, Any]:
    return {"ts_ns": START + int(at * MS), "seq": 1000, "bytes": LENGTH}


def test_payload_of_segments_is_of_no_message() -> None:
    """It names nothing, so that nothing need wait for it."""
    batch = Batch([messages(sent(1, 1, 1) | {"payload": b"x"}, family="segment")])
    assert RequestNames()(batch) is batch


def test_packets_of_one_segment_name_what_begins_in_each(tmp_path: Path) -> None:
    """Two requests in a segment of two packets, of which the second packet is sent again."""
    again = sent(30, 1000 + LENGTH, LENGTH, kind=EventKind.RETRANSMIT, cause=Cause.RTO)
    half = sent(40, 1000 + LENGTH - 5, 10, kind=EventKind.RETRANSMIT, cause=Cause.RTO)
    talk = once(GET, GET)
    both = [segments(sent(0.5, 1000, 2 * LENGTH, segs=2)), losses(again, half)]
    path = tmp_path / "run.pcapng"
    with path.open("wb") as file:
        sink = Pcapng(file, "segments")
        for part in named(Batch([*talk.parts, *both], CLOCK_OFFSET)):
            sink.write(Batch([part], CLOCK_OFFSET))
        sink.close()
    assert wrong(path) == []
    told = [row[0].split(", ", 1)[1] for row in fields(path, "frame.comment")]
    assert told == [
        "http GET /a (request 1), packet 1 of 2 of one segment (GSO)",
        "http GET /a (request 2), packet 2 of 2 of one segment (GSO)",
        f"cause rto, repeats bytes 0-{LENGTH - 1} of http GET /a (request 2)",
        f"cause rto, repeats bytes {LENGTH - 5}-{LENGTH - 1} of http GET /a (request 1),"
        " repeats bytes 0-4 of http GET /a (request 2)",
    ]


def test_values_are_not_named_and_what_has_no_payload_is_not_held() -> None:
    (part,) = named(once(b"GET /a?token=secret HTTP/1.1\r\nHost: a\r\n\r\n"))
    assert "secret" not in str(said(part))
    batch = Batch([segments(sent(1, 1, 1))])
    assert RequestNames()(batch) is batch


def test_events_are_held_no_longer_than_they_must() -> None:
    stage = RequestNames()
    assert not len(stage(once(GET)))
    end = START + 2 * MS
    assert not len(stage.tick(end + HOLD_NS - 1))
    assert len(stage.tick(end + HOLD_NS)) == 2
    assert not len(stage.close())


def test_all_events_pass_in_their_order_with_their_names() -> None:
    made = asked()
    parts = named(*made)
    assert sum(map(len, parts)) == sum(map(len, made))
    (again,) = [part for part in parts if part.family == "loss"]
    assert [one.text for one in said(again)[0]] == [
        "the response to http GET /item/5 (request 5): 503"
    ]


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_names, "CONNECTIONS_MAX", 3)
    stage = RequestNames()
    for port in range(10):
        batch = once(*[GET] * 30, at=port * 1000)
        for part in batch.parts:
            rows = part.rows
            client = rows["local_port"] == CLIENT["local_port"]
            rows["local_port"][client] = rows["remote_port"][~client] = 2000 + port
        stage(batch)
    stage.close()
    known = stage._connections.values()
    assert len(known) == 3
    assert max(len(one.exchanges) for one in known) <= request_names.KEPT


@settings(max_examples=25)
@given(batches())
def test_arbitrary_events(made: list[Batch]) -> None:
    parts = named(*made)
    assert sum(map(len, parts)) == sum(map(len, made))
    for source in ("segments", "messages"):
        sink = Pcapng(io.BytesIO(), source)
        for part in parts:
            sink.write(Batch([part]))
