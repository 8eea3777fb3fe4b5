"""What the rules make of counters: each speaks up for its reason, and none without."""

import gc
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tcprism.cli.explain import write_text
from tcprism.diagnosis import evidence, waits
from tcprism.diagnosis.cpu_time import cpu_times
from tcprism.diagnosis.delta import CONDITIONS, Delta
from tcprism.diagnosis.evidence import Evidence
from tcprism.diagnosis.explain import Verdict, explained, lines, verdicts
from tcprism.diagnosis.explanation import Explanation
from tcprism.diagnosis.facts import with_facts
from tcprism.diagnosis.measures import LEAST_SNAPSHOTS
from tcprism.diagnosis.rules import LABELS, RULES, limits
from tcprism.diagnosis.survey import Survey
from tcprism.events import Batch, Part
from tcprism.events._wire import Cause, EventKind
from tcprism.events.context import Context
from tcprism.events.names import STATES

from .records import connections, losses, messages, packed, snapshots
from .test_diagnosis_table import SECOND, row

TEN = 10_000_000  # microseconds
SENT: dict[str, Any] = {"bytes_sent": 1_000_000, "data_segs_out": 700, "busy_us": TEN}
PATH: dict[str, Any] = {
    "srtt_us": 20_000,
    "min_rtt_us": 19_000,
    "cwnd": 10,
    "mss": 1448,
    "congestion": b"cubic",
}


CLOSE_WAIT, LISTEN = STATES.index("CLOSE_WAIT"), STATES.index("LISTEN")
REQUEST: dict[str, Any] = {"bytes_sent": 20, "data_segs_out": 1}


def change(
    seen: dict[str, float] | None = None,
    facts: dict[str, Any] | None = None,
    looks: int = 100,
    **after: Any,
) -> Delta:
    """Return ten seconds of a connection that began with nothing."""
    first, last = snapshots(row(**PATH)).rows, snapshots(row(at=10, **PATH)).rows
    for name, value in after.items():
        last[name] = value
    shares = {name: np.array([(seen or {}).get(name, 0.0)]) for name in CONDITIONS}
    told = {name: np.array([value]) for name, value in (facts or {}).items()}
    return Delta(first, last, np.array([float(TEN)]), shares, np.array([float(looks)]), told)


GUILTY = {
    "backlog": change({"backlog_full": 0.5}, state=10, backlog=9, backlog_limit=8),
    "no-accept": change(
        {"backlog_waits": 1.0}, {"accepts": 0}, state=LISTEN, backlog=2, backlog_limit=8
    ),
    "syn-retry": change(facts={"connect_us": 1_011_000, "syns_again": 1}, total_retrans=1),
    "half-open": change({"keepalive_unanswered": 0.6}, probes_out=3),
    "close-wait": change({"close_wait": 1.0}, state=CLOSE_WAIT),
    "unaccepted": change(facts={"queued_at": "python3[7]"}),
    "retransmission-wait": change(**SENT, facts={"stalled_us": 3_000_000, "causes": "9 tlp"}),
    "slow-peer": change(**REQUEST, last_data_sent_us=7_200_000, last_data_recv_us=TEN),
    "slow-here": change(
        facts={"served_pending_us": 7_200_000, "asks": False},
        bytes_received=20,
        data_segs_in=1,
        last_data_recv_us=7_200_000,
        last_data_sent_us=TEN,
        local_port=443,
        remote_port=40_001,
    ),
    "spurious": change(**SENT, total_retrans=20, dsack_dups=20),
    "syn-unanswered": change({"syn_unanswered": 0.7}, icsk_retransmits=2, rto_us=4_000_000),
    "unanswered": change({"unanswered": 0.5}, icsk_retransmits=3, rto_us=1_600_000),
    "slow-reader-here": change({"reader_behind": 0.9}, unread=60_000),
    "retransmission-storm": change(**SENT, total_retrans=300),
    "receiver-window": change({"zero_window": 0.3}, **SENT, rwnd_limited_us=TEN // 2),
    "send-buffer": change(**SENT, sndbuf_limited_us=TEN // 2),
    "nagle": change({"nagle_waits": 0.4}),
    "loss": change({"held_back": 0.5}, **SENT, total_retrans=20),
    "bufferbloat": change({"many_in_flight": 0.9}, **SENT, srtt_us=200_000),
    "path": change({"held_back": 0.8}, **SENT),
    "small-segments": change(bytes_sent=70_000, data_segs_out=7000),
    "application": change(bytes_sent=1_000_000, data_segs_out=700, busy_us=TEN // 100),
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_each_rule_speaks_for_its_reason(rule: Any) -> None:
    found = verdicts(GUILTY[rule.name])
    assert rule.name in [verdict.rule for verdict in found]
    assert LABELS[limits(GUILTY[rule.name])[0]]
    assert all(verdict.proof for verdict in found)


def test_every_accusation_has_a_case_here() -> None:
    assert GUILTY.keys() == {rule.name for rule in RULES}


@pytest.mark.parametrize(
    "innocent",
    [
        change(),
        change(**SENT, rwnd_limited_us=TEN // 10, sndbuf_limited_us=TEN // 10),
        change(**SENT, total_retrans=3),
        change(**SENT, total_retrans=20),
        change(**SENT, srtt_us=30_000),
        change(bytes_received=10_000_000, busy_us=0),
        change(**SENT, srtt_us=200_000),
        change({"many_in_flight": 1.0}, **SENT, srtt_us=200_000, remote_ip=packed("192.0.2.1")),
        change(bytes_sent=70_000, data_segs_out=7000, data_segs_in=7000, busy_us=TEN),
        change(bytes_sent=7_000, data_segs_out=700, busy_us=TEN),
        change({"close_wait": 1.0}, state=CLOSE_WAIT, bytes_sent=500, busy_us=TEN),
        change({"backlog_waits": 1.0}, facts={"accepts": 4}, state=LISTEN, backlog=2),
        change({"nagle_waits": 1.0}, **SENT),
        change({"nagle_waits": 1.0, "reader_behind": 1.0}, looks=LEAST_SNAPSHOTS - 1),
    ],
    ids=[
        "idle",
        "a little of both",
        "few losses",
        "lost requests",
        "some queueing",
        "receives",
        "late ACKs",
        "loopback",
        "small answers",
        "seldom",
        "half-closed",
        "busy listener",
        "bulk",
        "few snapshots",
    ],
)
def test_nothing_is_proven_of_the_innocent(innocent: Delta) -> None:
    assert verdicts(innocent) == []
    assert limits(innocent).tolist() == [0]


def test_what_the_counters_of_a_rebuilt_connection_do_not_tell_is_not_held_against_it() -> None:
    assert verdicts(change(bytes_sent=1_000_000, sndbuf=0)) == []


def test_the_worst_comes_first_and_idleness_is_not_told_beside_it() -> None:
    slow = SENT | {"busy_us": TEN // 3, "bytes_sent": 100_000}
    both = change({"nagle_waits": 0.3}, **slow, rwnd_limited_us=TEN // 3)
    assert [verdict.rule for verdict in verdicts(both)] == [
        "receiver-window",
        "nagle",
    ]


def test_lines_have_the_share_and_say_when_there_is_nothing() -> None:
    part = snapshots(row())
    text = "\n".join(lines(part, change(), []))
    assert text.startswith("curl[7] 192.0.2.1:40001 -> 198.51.100.7:443, watched for 10 s")
    assert "nothing that limits it can be proven" in text
    guilty = GUILTY["receiver-window"]
    assert " 50 %  the peer's receive window is full" in "\n".join(
        lines(part, guilty, verdicts(guilty))
    )


def found(change: Delta, *parts: Part, machine: Part | None = None) -> dict[str, Verdict]:
    """Return the verdicts with what events tell; `machine` has the sockets of the host."""
    taken = Evidence()
    for part in parts:  # one by one, as batches come
        taken.add(Batch([part]))
    told = with_facts(change, taken, machine or snapshots())
    return {verdict.rule: verdict for verdict in verdicts(told)}


ENDS = {name: row()[name] for name in ("local_ip", "remote_ip", "local_port", "remote_port")}
PEER = {
    "local_ip": ENDS["remote_ip"],
    "remote_ip": ENDS["local_ip"],
    "local_port": ENDS["remote_port"],
    "remote_port": ENDS["local_port"],
}
SERVER: dict[str, Any] = {"local_port": 443, "remote_port": 40_001}
IDLE: dict[str, Any] = {"bytes_sent": 100, "bytes_received": 100, "busy_us": TEN // 20}
IDLE |= {"data_segs_out": 10, "data_segs_in": 10}


def at(moment: float) -> int:
    """Return a moment of the change, in seconds, on the clock of the records."""
    return 100 * SECOND + round(moment * SECOND)


def talk(*what: tuple[float, EventKind], **ends: Any) -> Part:
    """Return sends and receives of ten bytes at moments."""
    events = [{"ts_ns": at(m), "kind": kind, "bytes": 10, **ENDS, **ends} for m, kind in what]
    return messages(*events)


def conversation(answer_after: float, **ends: Any) -> Part:
    """Return ten requests a second apart, with their answers."""
    first, second = (EventKind.SEND, EventKind.RECV)
    if ends:
        first, second = second, first
    moments = [(s + d, k) for s in range(10) for d, k in ((0, first), (answer_after, second))]
    return talk(*moments, **ends)


def again(moment: float, cause: Cause, **fields: Any) -> dict[str, Any]:
    """Return a retransmission."""
    return {**ENDS, "ts_ns": at(moment), "cause": cause, "segs": 1, "bytes": 10, **fields}


def test_a_slow_peer_is_told_from_a_slow_network() -> None:
    slow = found(change(**IDLE), conversation(0.7))
    assert [*slow] == ["slow-peer"]
    assert slow["slow-peer"].share == pytest.approx(0.68)
    assert [*found(change(**IDLE), conversation(0.02))] == ["application"]


def test_a_server_works_and_does_not_wait_for_answers() -> None:
    assert [*found(change(**IDLE, **SERVER), conversation(0.7, **SERVER))] == ["slow-here"]
    asked_now_and_then = found(change(**IDLE, **SERVER), conversation(0.001, **SERVER))
    assert [*asked_now_and_then] == ["application"]


def test_who_listens_is_the_server_whatever_the_ports() -> None:
    high: dict[str, Any] = {"local_port": 50_001, "remote_port": 40_001}
    listener = snapshots(row(2, state=LISTEN, local_port=50_001))
    assert [*found(change(**IDLE, **high), conversation(0.7, **high), machine=listener)] == [
        "slow-here"
    ]


def test_one_long_answer_is_told_in_a_long_watch() -> None:
    fast = [(s + d, k) for s in range(3) for d, k in ((0, EventKind.SEND), (0.001, EventKind.RECV))]
    stall = ((5.0, EventKind.SEND), (7.0, EventKind.RECV))
    proof = found(change(**IDLE), talk(*fast, *stall))["slow-peer"].proof
    assert "the slowest after 1.98 s" in proof


def test_a_request_under_way_counts_with_its_age() -> None:
    sent = talk((2.8, EventKind.SEND))
    proof = found(change(**REQUEST), sent)["slow-peer"].proof
    assert proof == "has waited 7.2 s for an answer to what it sent, acknowledged"
    read = talk((2.8, EventKind.RECV), **SERVER)
    owed = change(bytes_received=20, data_segs_in=1, **SERVER)
    assert found(owed, read)["slow-here"].proof == "read a request 7.2 s ago and has not answered"


@pytest.mark.parametrize(
    "underway", [{"unacked": 20}, {"unsent": 20}, {"unread": 5}, {"state": CLOSE_WAIT}]
)
def test_who_may_not_have_been_heard_is_not_waited_for(underway: dict[str, Any]) -> None:
    told = found(change(**REQUEST, **underway), talk((2.8, EventKind.SEND)))
    assert not {"slow-peer", "slow-here"} & set(told)


def test_an_answer_to_what_was_asked_before_the_watch_counts() -> None:
    asked = snapshots(row(**IDLE, last_data_sent_us=1_500_000, last_data_recv_us=60 * TEN))
    taken = Evidence()
    taken.begin(asked)
    taken.add(Batch([talk((0.9, EventKind.RECV), (1, EventKind.SEND), (1.001, EventKind.RECV))]))
    told = {v.rule: v for v in verdicts(with_facts(change(**IDLE), taken, snapshots()))}
    assert "the slowest after 2.38 s" in told["slow-peer"].proof


def test_what_hooks_do_not_see_is_not_waited_for() -> None:
    came = change(**IDLE, last_data_sent_us=7_000_000, last_data_recv_us=5_000_000)
    assert "slow-peer" not in found(came, talk((3, EventKind.SEND)))


def test_a_process_that_works_is_told_from_one_that_waits() -> None:
    owed = change(bytes_received=20, data_segs_in=1, **SERVER)
    taken = Evidence()
    taken.add(Batch([talk((2.8, EventKind.RECV), **SERVER)]))
    told = verdicts(with_facts(owed, taken, snapshots(), {7: 9_800_000}))
    assert told[0].proof.endswith("not answered; its process ran for 98 % of the watch")


def test_cpu_time_is_what_the_kernel_counts() -> None:
    before = os.times()
    (told,) = cpu_times([os.getpid(), os.getpid()]).values()
    after = os.times()
    tick = 10_000
    assert (before.user + before.system) * 1e6 - tick <= told
    assert told <= (after.user + after.system) * 1e6 + tick


def test_a_stream_that_nobody_answers_waits_for_nothing() -> None:
    sends = talk(*((second, EventKind.SEND) for second in range(9)))
    assert "slow-peer" not in found(change(bytes_sent=90, data_segs_out=9, busy_us=TEN), sends)


def test_time_until_a_request_is_sent_again_is_not_the_peers() -> None:
    lost = losses(*(again(s + 0.205, Cause.TLP, rto_us=212_000) for s in range(10)))
    told = found(change(**IDLE, total_retrans=10, bytes_retrans=100), conversation(0.22), lost)
    assert "slow-peer" not in told
    assert "retransmission-wait" in told
    assert "10 tlp" in told["retransmission-wait"].proof


def test_what_the_peer_sends_again_is_not_its_work() -> None:
    """The answer leaves at once, is lost, and comes 700 ms later by the peer's own timer."""
    resent = (again(s + 0.69, Cause.RTO, rto_us=680_000, icsk_retransmits=1) for s in range(10))
    lost = losses(*({**event, **PEER} for event in resent))
    told = found(change(**IDLE), conversation(0.7), lost)
    assert "slow-peer" not in told
    assert told["retransmission-wait"].share == pytest.approx(0.69, abs=0.02)


def test_a_slow_peer_stays_one_though_its_answer_was_lost_once() -> None:
    resent = {**again(0.69, Cause.TLP, rto_us=210_000), **PEER}
    told = found(change(**IDLE), conversation(0.7), losses(resent))
    assert "slow-peer" in told
    assert "more for lost segments to be retransmitted" in told["slow-peer"].proof


def test_what_was_sent_in_vain_delays_nobody() -> None:
    vain = losses(*(again(s + 0.3, Cause.TLP, rto_us=212_000) for s in range(10)))
    told = found(change(**IDLE, total_retrans=10, dsack_dups=10), conversation(0.7), vain)
    assert {"slow-peer", "spurious"} == set(told)
    assert not told["spurious"].accuses


REASONS = Context(drop_reason=lambda number: "TCP_OLD_DATA" if number == 5 else "NETFILTER_DROP")


def with_reasons(*events: dict[str, Any]) -> Part:
    return Part(losses(*events).rows, context=REASONS)


def test_what_arrived_twice_was_not_lost() -> None:
    resent = [again(second, Cause.FAST, seq=second) for second in range(1, 9)]
    twice = [
        {**PEER, "kind": EventKind.DROP, "reason": 5, "seq": second, "bytes": 10,
         "ts_ns": at(second)} for second in range(1, 9)
    ]  # fmt: skip
    told = found(change(**SENT, total_retrans=8), with_reasons(*resent, *twice))
    assert [*told] == ["spurious"]
    assert "8 of 8 retransmitted segments had already arrived" in told["spurious"].proof


def test_losses_here_and_out_there() -> None:
    lossy = GUILTY["loss"]
    resent = again(1, Cause.RTO, segs=2)
    assert found(lossy, losses(resent))["loss"].proof.endswith(
        "lost out there (retransmitted: 2 rto)"
    )
    dropped = {"kind": EventKind.DROP, "bytes": 10, "ts_ns": at(1), **PEER}
    assert "this host dropped 1: 1 NETFILTER_DROP" in (
        found(lossy, with_reasons(resent, dropped))["loss"].proof
    )
    ack = {**dropped, "bytes": 0}
    assert "lost out there" in found(lossy, with_reasons(resent, ack))["loss"].proof


def test_how_many_duplicate_acks_were_behind_fast_retransmissions() -> None:
    resent = losses(*(again(second, Cause.FAST) for second in (1, 2, 3)), again(4, Cause.RTO))
    for acks, said in (((3, 0, 1), "1 to 3 duplicate ACKs"), ((1, 1, 0), "1 duplicate ACK")):
        known = np.ma.MaskedArray([*acks, 0], [*(not number for number in acks), True])
        told = found(GUILTY["loss"], resent.derive(duplicate_acks=known))["loss"].proof
        assert told.endswith(f"(retransmitted: 3 fast (after {said}), 1 rto)")


def test_a_kernel_that_counts_reordering_proves_it_where_nothing_was_sent_again() -> None:
    told = found(change(**SENT, reord_seen=2))["reordering"]
    assert told.proof.startswith("on the way out 2 times: SACK told of later bytes")
    assert not told.accuses
    assert "reordering" not in found(change(**SENT, reord_seen=2, total_retrans=1))


def test_a_connection_whose_syn_was_sent_again() -> None:
    connected = connections(
        {"kind": EventKind.CONNECT, "ts_ns": at(1.1), "elapsed_ns": 1_011_000_000, **ENDS}
    )
    syn = losses(again(1.0, Cause.SYN, bytes=0))
    told = found(change(total_retrans=1), connected, syn)
    assert "connecting took 1,011 ms" in told["syn-retry"].proof
    assert "syn-retry" not in found(change(), connected)


def test_a_client_in_an_accept_queue_is_told_so() -> None:
    here: dict[str, Any] = {"local_ip": "127.0.0.1", "remote_ip": "127.0.0.1"}
    packed_here: dict[str, Any] = {name: packed(address) for name, address in here.items()}
    server = row(2, **here, local_port=443, remote_port=0, state=LISTEN, backlog=1)
    client = change(**REQUEST, **packed_here, last_data_sent_us=TEN, last_data_recv_us=2 * TEN)
    told = found(client, machine=snapshots(server))
    assert "accept queue of curl[7]" in told["slow-peer"].proof
    assert "unaccepted" in told
    accepted = row(3, **here, local_port=443, remote_port=40_001)
    assert "unaccepted" not in found(client, machine=snapshots(server, accepted))


def cost(connections: int, events: int = 200_000) -> float:
    """Return the seconds that it takes to explain so many connections with so many events."""
    rows = np.repeat(messages({**ENDS, "bytes": 10}).rows, events)
    rows["local_port"] = 20_000 + np.arange(events) % connections
    rows["kind"] = np.where(np.arange(events) // connections % 2, EventKind.RECV, EventKind.SEND)
    rows["ts_ns"] = at(0) + np.arange(events) * 50_000
    lost = np.repeat(losses(again(1, Cause.TLP)).rows, events // 10)
    lost["local_port"] = 20_000 + np.arange(len(lost)) % connections
    looks = [
        snapshots(*(row(n + 1, moment, local_port=20_000 + n, **IDLE) for n in range(connections)))
        for moment in (0, 10)
    ]
    gc.collect()  # what tests before this one have left is not of these costs
    before = time.process_time()
    survey, taken = Survey(), Evidence()
    for look in looks:
        survey.add(look)
    taken.add(Batch([Part(rows), Part(lost)]))
    part, grown = survey.result()
    assert len(explained(part, with_facts(grown, taken, part))) == connections
    return time.process_time() - before


def test_explaining_does_not_cost_connections_times_events() -> None:
    assert cost(1000) < 5 * cost(100)


def test_what_is_remembered_of_events_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waits, "INTERVALS_MAX", 8)
    monkeypatch.setattr(evidence, "LOSSES_MAX", 5)
    taken = Evidence()
    for second in range(20):
        moments = ((second, EventKind.SEND), (second + 0.01 * second + 0.01, EventKind.RECV))
        taken.add(Batch([talk(*moments), losses(again(second, Cause.TLP))]))
    kept = np.concatenate([taken.waits.intervals(side) for side in (waits.ASKED, waits.SERVED)])
    assert 4 <= len(kept) <= 8
    assert 990_000_000 in kept["end"] - kept["start"]  # the longest are kept
    assert len(kept) + taken.waits.state["short"][0].sum() == 20 + 19
    assert len(taken.losses()) <= 10
    assert taken.forgotten + len(taken.losses()) == 20


def test_rules_are_documented() -> None:
    page = Path(__file__).parents[2].joinpath("docs/explain.md").read_text()
    for name in (*(rule.name for rule in RULES), "local-ports"):
        assert f"`{name}`" in page


def test_listeners_alone_are_an_answer(capsys: pytest.CaptureFixture[str]) -> None:
    write_text(Explanation((), {"LISTEN": 1}, snapshots=7), everything=False)
    assert capsys.readouterr().out == (
        "1 socket: 1 LISTEN; 7 snapshots\n\nnone of them is a connection\n"
    )
