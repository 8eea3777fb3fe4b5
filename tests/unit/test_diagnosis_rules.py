"""What the rules make of counters: each speaks up for its reason, and none without."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tcprism.diagnosis.delta import CONDITIONS, Delta
from tcprism.diagnosis.evidence import evidence
from tcprism.diagnosis.explain import lines, verdicts
from tcprism.diagnosis.rules import LABELS, RULES, limits
from tcprism.events import Batch
from tcprism.events._wire import EventKind

from .records import losses, messages, snapshots
from .test_diagnosis_table import row

TEN = 10_000_000  # microseconds
SENT: dict[str, Any] = {"bytes_sent": 1_000_000, "data_segs_out": 700, "busy_us": TEN}
PATH: dict[str, Any] = {
    "srtt_us": 20_000,
    "min_rtt_us": 19_000,
    "cwnd": 10,
    "mss": 1448,
    "congestion": b"cubic",
}


def change(seen: dict[str, float] | None = None, **after: Any) -> Delta:
    """Return ten seconds of a connection that began with nothing."""
    first, last = snapshots(row(**PATH)).rows, snapshots(row(at=10, **PATH)).rows
    for name, value in after.items():
        last[name] = value
    shares = {name: np.array([(seen or {}).get(name, 0.0)]) for name in CONDITIONS}
    return Delta(first, last, np.array([float(TEN)]), shares)


GUILTY = {
    "backlog": change({"backlog_full": 0.5}, state=10, backlog=9, backlog_limit=8),
    "syn-unanswered": change({"syn_unanswered": 0.7}, icsk_retransmits=2, rto_us=4_000_000),
    "unanswered": change({"unanswered": 0.5}, icsk_retransmits=3, rto_us=1_600_000),
    "slow-reader-here": change({"reader_behind": 0.9}, unread=60_000),
    "retransmission-storm": change(**SENT, total_retrans=300),
    "receiver-window": change({"zero_window": 0.3}, **SENT, rwnd_limited_us=TEN // 2),
    "send-buffer": change(**SENT, sndbuf_limited_us=TEN // 2),
    "nagle": change({"nagle_waits": 0.4}),
    "loss": change(**SENT, total_retrans=20),
    "bufferbloat": change(**SENT, srtt_us=200_000),
    "path": change({"held_back": 0.8}, **SENT),
    "small-segments": change(bytes_sent=7_000, data_segs_out=700),
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
        change(**SENT, srtt_us=30_000),
        change(bytes_received=10_000_000, busy_us=0),
    ],
    ids=["idle", "a little of both", "few losses", "some queueing", "receives"],
)
def test_nothing_is_proven_of_the_innocent(innocent: Delta) -> None:
    assert verdicts(innocent) == []
    assert limits(innocent).tolist() == [0]


def test_what_the_counters_of_a_rebuilt_connection_do_not_tell_is_not_held_against_it() -> None:
    assert verdicts(change(bytes_sent=1_000_000, sndbuf=0)) == []


def test_the_worst_comes_first_and_the_application_last() -> None:
    both = change({"nagle_waits": 0.3}, **SENT | {"busy_us": TEN // 3}, rwnd_limited_us=TEN // 3)
    assert [verdict.rule for verdict in verdicts(both)] == [
        "receiver-window",
        "nagle",
        "application",
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


def conversation(answer_after: float, local_port: int = 40_001) -> Batch:
    """Return ten requests a second apart, with their answers."""
    events = []
    for second in range(10):
        for kind, moment in ((EventKind.SEND, second), (EventKind.RECV, second + answer_after)):
            events.append(row(at=moment, kind=kind, bytes=10, local_port=local_port))
    known = set(messages().rows.dtype.names or ())
    return Batch([messages(*({k: v for k, v in e.items() if k in known} for e in events))])


def test_a_slow_peer_is_told_from_a_slow_network() -> None:
    of = snapshots(row()).rows[0]
    idle = change(bytes_sent=100, busy_us=TEN // 20)
    found = verdicts(idle, evidence(conversation(0.7), of))
    assert [verdict.rule for verdict in found] == ["slow-peer"]
    assert found[0].share == pytest.approx(0.68)
    assert [v.rule for v in verdicts(idle, evidence(conversation(0.02), of))] == ["application"]


def test_a_server_does_not_wait_for_answers() -> None:
    server: dict[str, Any] = {"local_port": 443, "remote_port": 40_001}
    of = snapshots(row(**server)).rows[0]
    asked = change(bytes_sent=100, busy_us=TEN // 20, **server)
    events = conversation(0.7, local_port=443)
    events.parts[0].rows["remote_port"] = 40_001
    assert [v.rule for v in verdicts(asked, evidence(events, of))] == ["application"]


def test_losses_here_and_out_there() -> None:
    of = snapshots(row()).rows[0]
    ends = {name: row()[name] for name in ("local_ip", "remote_ip", "local_port", "remote_port")}
    again = [{**ends, "kind": EventKind.RETRANSMIT, "segs": 2, "cause": 1}]
    lossy = GUILTY["loss"]
    (verdict,) = verdicts(lossy, evidence(Batch([losses(*again)]), of))
    assert verdict.proof.endswith("lost out there (sent again: 2 rto)")
    dropped = {
        "kind": EventKind.DROP,
        "local_ip": ends["remote_ip"],
        "remote_ip": ends["local_ip"],
        "local_port": ends["remote_port"],
        "remote_port": ends["local_port"],
    }
    (verdict,) = verdicts(lossy, evidence(Batch([losses(*again, dropped)]), of))
    assert "this host dropped 1: 1 unknown" in verdict.proof


def test_rules_are_documented() -> None:
    page = Path(__file__).parents[2].joinpath("docs/explain.md").read_text()
    for name in (*(rule.name for rule in RULES), "slow-peer", "local-ports"):
        assert f"`{name}`" in page
