"""What requests add to `explain`: which one is slow, which one waits, and who is not to blame."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tcprism.cli.explain import doubts, summary
from tcprism.diagnosis.evidence import Evidence
from tcprism.diagnosis.explain import Verdict, explained, verdicts
from tcprism.diagnosis.explanation import Explanation, asked_by
from tcprism.diagnosis.facts import with_facts
from tcprism.diagnosis.request_evidence import RequestEvidence
from tcprism.diagnosis.request_facts import pending_of
from tcprism.events import Batch, Part
from tcprism.events._wire import EventKind

from .records import messages, snapshots, tls_messages
from .test_diagnosis_rules import IDLE, change
from .test_plaintext import OVERHEAD, RECV, SEND, TLS_RECV, TLS_SEND, encrypted, plain

MS = 1_000_000
NOW = 110_000 * MS  # the last snapshot of `change`
CLOCKS = "tcprism.diagnosis.request_evidence.time"
Says = tuple[float, str, bytes]  # seconds from the start, who says it, what

GET = b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SUBSCRIBE = b"*2\r\n$9\r\nSUBSCRIBE\r\n$4\r\nnews\r\n"
SUBSCRIBED = b"*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n"
PUSHED = b"*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$2\r\nhi\r\n"


def talk(*said: Says, client: Any = (), server: Any = (), both: bool = True) -> Batch:
    """Return the messages of both ends, or of the client's only, read as soon as they are written.

    The client has port 40001 of 192.0.2.1, the server 443 of 198.51.100.7.
    """
    a = {"local_ip": "192.0.2.1", "local_port": 40_001, "pid": 7, "comm": b"curl", **dict(client)}
    b = {"local_ip": "198.51.100.7", "local_port": 443, "pid": 9, "comm": b"nginx", **dict(server)}
    for here, there in ((a, b), (b, a)):
        here |= {"remote_ip": there["local_ip"], "remote_port": there["local_port"]}
    seqs, events = {"client": 1000, "server": 5000}, []
    for moment, who, data in said:
        writer, reader = (a, b) if who == "client" else (b, a)
        common = {"ts_ns": NOW - 10_000 * MS + int(moment * 1000) * MS, "payload": data}
        common["seq"] = seqs[who]
        seqs[who] += len(data)
        for end, kind in ((writer, EventKind.SEND), (reader, EventKind.RECV)):
            if both or end is a:
                events.append({**end, **common, "kind": kind})
    return Batch([messages(*events, payload_class=256)])


def found(*batches: Batch, whole: bool = True, **row: Any) -> dict[str, Verdict]:
    """Return the verdicts about one end; the client's, unless the row's ends are others."""
    taken = Evidence()
    for batch in batches:
        taken.add(batch)
    about = change(**IDLE, srtt_us=100, **row)
    part = Part(about.after)
    pending = pending_of(taken.requests, part, whole)
    told = with_facts(about, taken, part, pending=pending)
    return {verdict.rule: verdict for verdict in verdicts(told)}


SERVER: dict[str, Any] = {
    "local_ip": snapshots({"local_ip": "198.51.100.7"}).rows["local_ip"][0],
    "remote_ip": snapshots({"local_ip": "192.0.2.1"}).rows["local_ip"][0],
    "local_port": 443,
    "remote_port": 40_001,
}  # fmt: skip


def answered(*seconds: float) -> list[Says]:
    """Return a request every two seconds; the server takes so long for each."""
    said: list[Says] = []
    for number, took in enumerate(seconds):
        said += [(2 * number + 0.1, "client", GET % b"page/%d" % number)]
        said += [(2 * number + 0.1 + took, "server", OK)]
    return said


def test_the_slowest_request_is_named_at_both_ends() -> None:
    batch = talk(*answered(0.3, 1.5, 0.3, 0.3))
    asking, serving = found(batch), found(batch, **SERVER)
    for proof in (asking["slow-peer"].proof, serving["slow-here"].proof):
        assert "4 answers" in proof
        assert "the slowest after 1.5 s (http GET /page/1" in proof
    assert "by nginx[9]" in asking["slow-peer"].proof
    assert asking["slow-peer"].share == pytest.approx(0.24, abs=0.01)


def test_a_pending_request_is_named_with_its_age_and_who_has_read_it() -> None:
    batch = talk(*answered(0.001), (2.8, "client", GET % b"slow"))
    assert found(batch)["slow-peer"].proof.startswith(
        "http GET /slow has waited 7.2 s for its response, acknowledged and read by nginx[9]"
    )
    assert found(batch, **SERVER)["slow-here"].proof.startswith(
        "read http GET /slow 7.2 s ago and has not answered"
    )


def test_no_request_is_named_that_may_have_been_answered() -> None:
    batch = talk(*answered(0.001), (2.8, "client", GET % b"slow"), both=False)
    assert "GET /slow" in found(batch)["slow-peer"].proof
    assert "GET /slow" not in str(found(batch, whole=False))


def test_half_a_request_is_not_the_servers_fault() -> None:
    half = b"POST /form HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf"
    assert "slow-peer" not in found(talk(*answered(0.001), (2.5, "client", half)))


def test_who_subscribes_waits_for_no_answer() -> None:
    """The order of sends and receives looks like an answer after nine seconds."""
    batch = talk(
        (0.1, "client", SUBSCRIBE), (0.101, "server", SUBSCRIBED),
        (0.5, "client", b"*1\r\n$4\r\nPING\r\n"),
        (0.501, "server", b"*2\r\n$4\r\npong\r\n$0\r\n\r\n"),
        (9.5, "server", PUSHED),
    )  # fmt: skip
    assert "slow-peer" not in found(batch)
    assert "slow-here" not in found(batch, **SERVER)


def test_a_slow_request_among_others_on_the_same_connection_is_found() -> None:
    """Pipelined: answers come, and the second one takes three seconds."""
    said: list[Says] = [(0.1, "client", GET % b"one"), (0.2, "client", GET % b"two")]
    said += [(0.25, "server", OK), (3.2, "server", OK)]
    proof = found(talk(*said))["slow-peer"].proof
    assert "(http GET /two by nginx[9])" in proof


def test_ends_with_the_same_addresses_in_two_namespaces_are_not_mixed_up() -> None:
    batch = talk(*answered(0.3, 1.5, 0.3, 0.3))
    taken = Evidence()
    taken.add(batch)
    one = change(**IDLE)
    rows = Part(one.after).take(np.array([0, 0])).rows
    rows["netns"][1] += 1
    both = replace(one, after=rows, before=rows, elapsed_us=np.repeat(one.elapsed_us, 2))
    part = Part(rows)
    told = with_facts(both, taken, part, pending=pending_of(taken.requests, part, whole=True))
    assert set(told.facts["asked_slowest"].tolist()) == {""}


CART: dict[str, Any] = {"client": {"pid": 9, "comm": b"nginx", "local_port": 50_001}}
UPSTREAMS: dict[int, Any] = {
    port: {**CART, "server": {"local_port": port, "pid": port, "comm": b"api"}}
    for port in (8080, 8081)
}


def upstream(port: int, begin: float, took: float, path: bytes) -> Batch:
    """Return a request that the server of the client's makes itself to another."""
    said = [(begin, "client", GET % path), (begin + took, "server", OK)]
    return talk(*said, **UPSTREAMS[port])


def test_what_a_server_itself_waited_for_is_named() -> None:
    proxied = [
        talk(*answered(2.0)),
        upstream(8080, 0.2, 1.8, b"stock"),
        upstream(8081, 2.0, 0.05, b"price"),
    ]
    proof = found(*proxied, **SERVER)["slow-here"].proof
    assert "meanwhile it waited 1.8 s for 198.51.100.7:8080 (http GET /stock)" in proof


@pytest.mark.parametrize(
    "others",
    [
        [upstream(8080, 0.2, 0.5, b"stock")],
        [upstream(8080, 1.0, 1.8, b"stock")],
        [
            upstream(8080, 0.2, 1.8, b"stock"),
            talk((0.15, "client", GET % b"b"), (2.3, "server", OK), client={"local_port": 40_002}),
        ],
    ],
    ids=["too short to matter", "longer than the request", "for another request perhaps"],
)
def test_nothing_is_said_of_others_without_proof(others: list[Batch]) -> None:
    assert "meanwhile" not in str(found(talk(*answered(2.0)), *others, **SERVER))


def test_of_several_servers_the_slow_one_comes_first() -> None:
    taken = Evidence()
    for port, took in ((8081, 0.002), (8080, 1.8)):
        taken.add(upstream(port, 0.5, took, b"x"))
    ends: dict[str, Any] = {"pid": 9, "comm": b"nginx", "local_port": 50_001, "remote_port": 8080}
    about = change(**IDLE, srtt_us=100, **ends)
    part = Part(about.after)
    pending = pending_of(taken.requests, part, whole=True)
    connections = tuple(explained(part, with_facts(about, taken, part, pending=pending)))
    servers = asked_by(connections, taken.requests, pending)
    assert [server.at for server in servers[0]] == ["198.51.100.7:8080", "198.51.100.7:8081"]
    found = Explanation(connections, {}, 100, servers=servers)
    assert (
        "nginx[9] waited for 198.51.100.7:8080 1.8 s (1 request, http GET /x);"
        " 198.51.100.7:8081 2 ms (1 request, http GET /x)"
    ) in "\n".join(summary(found, connections, ()))
    assert asked_by((), taken.requests, pending) == ()


def test_reading_takes_no_more_than_its_share_and_that_is_said() -> None:
    """The clocks are the truth here: each batch takes a second of them."""
    taken, clock, cpu = RequestEvidence(0.25), iter(range(1000)), iter(range(1000))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"{CLOCKS}.monotonic", lambda: next(clock))
        patch.setattr(f"{CLOCKS}.thread_time", lambda: next(cpu))
        for _ in range(20):
            taken.add(talk(*answered(0.1)))
    assert taken.skipped in range(4 * 13, 4 * 17, 4)
    told = doubts(Explanation((), {}, 0, skipped=taken.skipped))
    assert "requests were not read off" in "".join(told)
    assert not pending_of(taken, Part(change(**IDLE).after), whole=True).whole


def inside_tls(*said: tuple[float, bytes], began: dict[bool, int]) -> Batch:
    """Return what a client says and hears inside TLS, each in a record; `began` counts bytes."""
    calls, plaintext = [], []
    for moment, data in said:
        asks, size = data.startswith(b"GET"), len(data) + OVERHEAD
        at, kinds = NOW + int(moment * 1000) * MS, (SEND, TLS_SEND) if asks else (RECV, TLS_RECV)
        calls.append(encrypted(kinds[0], at - 1000, began[asks], size))
        plaintext.append(plain(kinds[1], at, data, (began[asks], size)))
        began[asks] += size
    return Batch([messages(*calls), tls_messages(*plaintext, payload_class=256)])


@pytest.mark.parametrize("left_out", [False, True])
def test_no_response_is_taken_for_that_of_a_request_before_what_was_left_out(
    left_out: bool,
) -> None:
    """The first response and the second request are left out; plaintext does not show a gap."""
    get, began = GET % b"slow", {True: 1000, False: 9000}
    taken = RequestEvidence(0.25)
    with pytest.MonkeyPatch.context() as patch:
        clock, cpu = iter([0, 1, 100]), iter([0, 10 if left_out else 0, *[10] * 10])
        patch.setattr(f"{CLOCKS}.monotonic", lambda: next(clock))
        patch.setattr(f"{CLOCKS}.thread_time", lambda: next(cpu))
        for said in ([(-10, get)], [(-9, OK), (-9, get)], [(-1, OK)]):
            taken.add(inside_tls(*said, began=began))
    taken.pending(NOW)  # what is held for later calls is over
    assert bool(taken.skipped) == left_out
    slowest = [one.took_ns for one in taken.slowest[0].values()]
    assert slowest == ([] if left_out else [8_000 * MS])
