"""`tcprism top` and `tcprism explain` over recordings, with and without snapshots in them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tcprism
from tcprism.cli.explain import command as explain
from tcprism.cli.top import command as top
from tcprism.cli.top import parse_interval
from tcprism.diagnosis import feeds
from tcprism.diagnosis.feeds import Recorded
from tcprism.diagnosis.rebuild import rebuild
from tcprism.diagnosis.survey import Survey, snapshots_of
from tcprism.errors import UsageError
from tcprism.events import Batch, Part
from tcprism.events._wire import Cause, EventKind
from tcprism.events.facts import Facts
from tcprism.events.names import STATES
from tcprism.recording.reader import Recording
from tcprism.recording.writer import Writer

from .asked import COUNT, MS, SERVER_MS, asked
from .records import connections, losses, messages, segments, snapshots
from .session import CLOCK_OFFSET, HTTPS, LENGTH, SECOND, look, talk
from .test_diagnosis_table import row

ENDS = {**HTTPS, "pid": 7, "comm": b"curl", "netns": 1}


def recorded(path: Path, *batches: Batch) -> Path:
    with path.open("wb") as file:
        writer = Writer(file, Facts(("send",)))
        for batch in batches:
            writer.write(batch)
        writer.close()
    return path


def session(path: Path, *, with_snapshots: bool) -> Path:
    """Record the session of the screens."""
    batches = [
        Batch([*([look(second)] if with_snapshots else []), *talk(second)], CLOCK_OFFSET)
        for second in range(LENGTH)
    ]
    return recorded(path, *batches)


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Callable[..., list[dict[str, Any]]]:
    """Run a command and return the JSON that it prints."""

    def run_command(command: Any, *arguments: str) -> list[dict[str, Any]]:
        command.main(arguments, standalone_mode=False)
        return [json.loads(line) for line in capfd.readouterr().out.splitlines()]

    return run_command


Run = Callable[..., list[dict[str, Any]]]


def test_snapshots_come_back_one_by_one(tmp_path: Path) -> None:
    path = session(tmp_path / "run.tcpr", with_snapshots=True)
    feed = Recorded(Recording(path), 1.0)
    feed.seek(feed.span[1])
    table = feed.table(None)
    assert len(table) == 4
    assert len(feed.past(11)) == LENGTH
    assert table.rate_out.max() == pytest.approx(900_000)
    assert (table.throughput[2, -10:] == 900_000).all()


def test_top_json_of_a_recording_goes_through_it(tmp_path: Path, run: Run) -> None:
    path = session(tmp_path / "run.tcpr", with_snapshots=True)
    objects = run(top, str(path), "--format", "json", "--remote-port", "443")
    assert len(objects) == LENGTH + 1  # the last is where the last event is
    (curl,) = objects[-1]["connections"]
    assert (curl["comm"], curl["rate_in"], curl["state"]) == ("curl", 200_000, "ESTABLISHED")


def test_a_recording_without_snapshots_is_put_together(tmp_path: Path, run: Run) -> None:
    path = session(tmp_path / "run.tcpr", with_snapshots=False)
    last = run(top, str(path), "--format", "json")[-1]["connections"]
    by_name = {connection["comm"].split(chr(92))[0]: connection for connection in last}
    assert by_name["curl"]["rate_in"] == 200_040
    assert by_name["backup"]["total_retrans"] == LENGTH
    assert {connection["limited_by"] for connection in last} <= {None, "loss"}


def test_explain_a_recording(tmp_path: Path, run: Run) -> None:
    path = session(tmp_path / "run.tcpr", with_snapshots=True)
    found = {
        (e["pid"], e["remote_port"]): {v["rule"] for v in e["verdicts"]}
        for e in run(explain, str(path), "--format", "json")
    }
    assert found[431, 51_000] == {"receiver-window"}
    assert found[977, 22] == {"loss"}
    assert found[812, 443] == {"application"}


def test_explain_takes_a_life_from_its_close(tmp_path: Path, run: Run) -> None:
    life = {
        "kind": EventKind.CLOSE, "ts_ns": 9 * SECOND, "elapsed_ns": 8 * SECOND, "bytes_sent": 10**6,
        "busy_us": 7_900_000, "rwnd_limited_us": 6_000_000, "data_segs_out": 700, **ENDS,
    }  # fmt: skip
    path = recorded(tmp_path / "run.tcpr", Batch([connections(life)], CLOCK_OFFSET))
    (one,) = run(explain, str(path), "--format", "json")
    assert one["watched_us"] == 8_000_000
    assert [(v["rule"], v["share"]) for v in one["verdicts"]] == [("receiver-window", 0.75)]


def test_rebuilt_connections_are_what_their_events_say() -> None:
    batch = Batch(
        [
            connections(
                {"ts_ns": 1, "kind": EventKind.CONNECT, **ENDS},
                {"ts_ns": 9, "kind": EventKind.CLOSE, **ENDS, "remote_port": 80},
                {"ts_ns": 2, "kind": EventKind.STATE, **ENDS, "local_port": 0},
            ),
            messages({"ts_ns": 3, "bytes": 5, **ENDS}, {"ts_ns": 8, "bytes": 7, **ENDS}),
            segments({"ts_ns": 4, "bytes": 5, "segs": 2, "srtt_us": 70, "cwnd": 9, **ENDS}),
            losses({"ts_ns": 5, "segs": 1, "srtt_us": 80, "cwnd": 4, **ENDS}),
        ]
    )
    (row,) = rebuild([batch], 6).rows
    assert (row["bytes_sent"], row["data_segs_out"], row["total_retrans"]) == (5, 3, 1)
    assert (row["srtt_us"], row["min_rtt_us"], row["cwnd"], row["pid"]) == (80, 70, 4, 7)
    assert row["state"] == STATES.index("ESTABLISHED")
    assert len(rebuild([batch], 0)) == 0
    assert len(rebuild([], 5)) == 0


def test_a_survey_counts_from_the_first_look_or_from_nothing() -> None:
    survey = Survey()
    survey.add(snapshots(row(1, bytes_sent=100)))
    survey.add(snapshots(row(1, at=1, bytes_sent=150), row(2, at=1, bytes_sent=30)))
    part, change = survey.result()
    assert part.rows["inode"].tolist() == [1, 2]
    assert change.new_bytes.tolist() == [50, 30]
    assert change.elapsed_us.tolist() == [1_000_000, 1_000_000]
    assert len(Survey().result()[0]) == 0


def test_snapshots_in_one_part_are_told_apart_by_time() -> None:
    parts: list[Part] = snapshots_of(snapshots(row(1), row(2), row(1, at=0.2), row(2, at=0.2)))
    assert [part.rows["inode"].tolist() for part in parts] == [[1, 2], [1, 2]]
    assert snapshots_of(snapshots()) == []


def test_the_first_activity(tmp_path: Path) -> None:
    """After idle snapshots, after a late first event, or at once where there is nothing."""
    idle = [Batch([snapshots(row(1, at=at, bytes_sent=5))]) for at in range(4)]
    busy = [Batch([snapshots(row(1, at=at, bytes_sent=5 + at))]) for at in (4, 5)]
    feed = Recorded(Recording(recorded(tmp_path / "1.tcpr", *idle, *busy)), 1.0)
    assert feed.first_activity_ns == int(busy[0]["ts_ns"][0])
    late = Batch([messages({"ts_ns": 7 * SECOND, **ENDS}, {"ts_ns": 9 * SECOND, **ENDS})])
    assert Recorded(Recording(recorded(tmp_path / "2.tcpr", late)), 0.5).first_activity_ns == (
        7 * SECOND + SECOND // 2
    )
    feed = Recorded(Recording(recorded(tmp_path / "3.tcpr")), 1.0)
    assert feed.first_activity_ns == feed.span[0] == 0


@pytest.mark.parametrize(("text", "seconds"), [("1s", 1), ("500ms", 0.5), ("2", 2), ("0.1s", 0.1)])
def test_intervals(text: str, seconds: float) -> None:
    assert parse_interval(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "1m", "-1", "nan", "4000", "1e3", "\u0661s"])
def test_no_intervals(text: str) -> None:
    with pytest.raises(UsageError, match="--interval"):
        parse_interval(text)


def test_the_oldest_events_make_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(feeds, "MOST_EVENTS", 10)
    batches = [Batch([messages({"ts_ns": n, **ENDS}, {"ts_ns": n, **ENDS})]) for n in range(10)]
    feed = Recorded(Recording(recorded(tmp_path / "run.tcpr", *batches)), 1.0)
    feed.seek(feed.span[1])
    assert len(feed.events()) == 10
    assert feed.forgotten == 10
    assert feed.span == (5, 9)


HELD = {"data_segs_out": 5, "data_segs_in": 5, "bytes_sent": 50, "bytes_received": 50, "mss": 1448}
TALK = {name: value for name, value in row().items() if name.endswith(("_ip", "_port"))}
TALK |= {"bytes": 10, "netns": 1, "pid": 7, "comm": b"curl"}


def stalled(path: Path) -> Path:
    """Record snapshots each second but for three of them, in which an answer takes two seconds."""
    looks = [
        snapshots(row(1, at=at, netns=1, pid=7, **HELD), row(2, at=at, netns=1, remote_port=80))
        for at in (0, 1, 2, 5, 6, 7, 8)
    ]
    begin = 100 * SECOND
    said = [
        (2.5, EventKind.SEND),
        (4.5, EventKind.RECV),
        (6, EventKind.SEND),
        (6.01, EventKind.RECV),
    ]
    talk = messages(
        *({**TALK, "ts_ns": begin + round(at * SECOND), "kind": kind} for at, kind in said)
    )
    return recorded(path, *(Batch([look], CLOCK_OFFSET) for look in looks), Batch([talk]))


def test_a_stall_between_snapshots_is_told_from_its_messages(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    explain.main([str(stalled(tmp_path / "run.tcpr"))], standalone_mode=False)
    shown = capfd.readouterr()
    assert "the peer takes its time to answer: 2 answers" in shown.out
    assert "the slowest after 2 s" in shown.out
    assert "snapshots are missing: 1 gap of up to 3 s" in shown.err


def test_explain_filters_a_recording(tmp_path: Path, run: Run) -> None:
    path = stalled(tmp_path / "run.tcpr")
    (one,) = run(explain, str(path), "--format", "json", "--remote-port", "80")
    assert one["remote_port"] == 80


def test_explain_a_recording_in_python(tmp_path: Path) -> None:
    found = tcprism.explain(stalled(tmp_path / "run.tcpr"), filters=tcprism.Filter(port=443))
    (one,) = found
    assert (one.owner, one.state, len(found)) == ("curl[7]", "ESTABLISHED", 1)
    assert [(v.rule, v.accuses) for v in one.verdicts] == [("slow-peer", True)]
    assert found.states == {"ESTABLISHED": 1}
    assert [pause.seconds for pause in found.pauses] == [3.0]


def test_a_connection_that_no_look_saw_is_told_from_its_events(tmp_path: Path, run: Run) -> None:
    begin = 100 * SECOND
    short = {**TALK, "local_port": 50_000}
    said = messages(
        {**short, "ts_ns": begin + 100, "kind": EventKind.SEND},
        {**short, "ts_ns": begin + 2 * SECOND, "kind": EventKind.RECV},
    )
    looks = [Batch([snapshots(row(1, at=at, netns=1, **HELD))], CLOCK_OFFSET) for at in range(9)]
    path = recorded(tmp_path / "run.tcpr", *looks, Batch([said], CLOCK_OFFSET))
    found = {one["local_port"]: one for one in run(explain, str(path), "--format", "json")}
    assert [v["rule"] for v in found[50_000]["verdicts"]] == ["slow-peer"]
    assert "acknowledged" not in found[50_000]["verdicts"][0]["proof"]
    assert not found[40_001]["verdicts"]


def test_a_short_life_that_waited_for_a_timer(tmp_path: Path, run: Run) -> None:
    lost = {**TALK, "ts_ns": SECOND + 205_000_000, "segs": 1, "srtt_us": 50, "rto_us": 204_000}
    life = {
        **TALK, "kind": EventKind.CLOSE, "ts_ns": SECOND + 206_000_000, "elapsed_ns": 206_000_000,
        "bytes": 0, "bytes_sent": 20, "bytes_retrans": 10, "data_segs_out": 2, "total_retrans": 1,
    }  # fmt: skip
    tlp = losses({**lost, "cause": Cause.TLP, "packets_out": 1})
    open_one = losses({**lost, "cause": Cause.FAST, "local_port": 50_001, "bytes": 10})
    batch = Batch([tlp, open_one, connections(life)], CLOCK_OFFSET)
    found = run(explain, str(recorded(tmp_path / "run.tcpr", batch)), "--format", "json")
    told = {one["local_port"]: [v["rule"] for v in one["verdicts"]] for one in found}
    assert told == {40_001: ["retransmission-wait"], 50_001: []}  # its SYN was not sent again


def test_a_summary_comes_first_then_the_worst_of_each_verdict(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    left = {"state": STATES.index("CLOSE_WAIT"), "pid": 9, "comm": b"leaky"}
    stuck = {"busy_us": 9_000_000, "rwnd_limited_us": 8_000_000, "bytes_sent": 1000}
    looks = [
        snapshots(
            *(row(n, at=at, **left) for n in range(1, 39)),
            *(row(n, at=at) for n in range(50, 70)),
            row(90, at=at, **(stuck if at else {}), remote_ip="203.0.113.9"),
        )
        for at in range(9)
    ]
    path = recorded(tmp_path / "run.tcpr", *(Batch([look], CLOCK_OFFSET) for look in looks))
    explain.main([str(path)], standalone_mode=False)
    lines = capfd.readouterr().out.splitlines()
    assert lines[0] == "59 sockets: 38 CLOSE_WAIT, 21 ESTABLISHED; 9 snapshots"
    assert lines[1].split(maxsplit=1)[0] == "38"
    assert "the process here has not: leaky[9] (38); with 198.51.100.7 (38)" in lines[1]
    assert "the peer's receive window is full: curl[7]; with 203.0.113.9" in lines[2]
    assert lines[3] == "   20  nothing that limits it can be proven"
    headings = [line for line in lines if " -> " in line]
    assert len(headings) == 5
    assert {line.split("[")[0] for line in headings[:2]} == {"leaky", "curl"}
    assert lines[-1] == "54 more are not shown: --all shows every one"
    explain.main([str(path), "--all"], standalone_mode=False)
    assert capfd.readouterr().out.count(" -> ") == 59


def test_requests_as_json_and_as_text(
    tmp_path: Path, run: Callable[..., Any], capfd: pytest.CaptureFixture[str]
) -> None:
    """Nine are answered, as `asked` says, and one is not."""
    pytest.importorskip("ddsketch")
    path = str(recorded(tmp_path / "run.tcpr", *asked()))
    looks = run(top, path, "--view", "requests", "--format", "json")
    (route,) = looks[-1]["routes"]
    told = [route[name] for name in ("route", "count", "failed", "retransmissions", "mostly")]
    assert told == ["http GET /item/?", COUNT, 1, 1, "server"]
    assert route["max_ns"] == (max(SERVER_MS) + 3) * MS
    assert route["p50_ns"] == pytest.approx((sorted(SERVER_MS)[COUNT // 2] + 3) * MS, rel=0.01)
    (waiting,) = looks[-1]["pending"]
    assert (waiting["resource"], waiting["server_comm"]) == ("/never", "nginx")
    assert waiting["waiting_for"] == "response"
    assert 0 <= waiting["age_ns"] < SECOND
    top.main((path, "--view", "requests", "--plain"), standalone_mode=False)
    last = capfd.readouterr().out.split("\n\n")[-2].splitlines()
    assert last[1] == "1 without a response"
    assert "http GET /never (pending: response)  curl[812] -> nginx[431]" in last[2]
    assert last[-1].split()[0] == str(COUNT)
    assert last[-1].endswith("http GET /item/?")
