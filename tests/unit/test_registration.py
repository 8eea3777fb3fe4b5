"""A family that a stage makes: registered in one place, it is in every format and in the ledger."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import generate_docs
from tcprism.cli import export, options, replay
from tcprism.events import Batch, Part
from tcprism.events import _wire as wire
from tcprism.events.column import Column, derived_column, equal, field_column
from tcprism.events.kinds import NO_KIND, NUMBERS, Family, Kind, kind_name, record
from tcprism.events.ledger import Account, Entry, Received, close_accounts
from tcprism.events.registration import register, rows_from, unregister
from tcprism.recording.reader import Recording
from tcprism.recording.sql import Database
from tcprism.sinks.count import Count
from tcprism.sinks.csv_lines import Csv
from tcprism.sinks.json_lines import JsonLines
from tcprism.sinks.text import Text
from tcprism.stages import StatefulStage, accounts, close, through

from .recordings import recorded, written
from .records import messages

OFFSET_NS = 1_767_225_600_000_000_000


def told(verb: str | None, took_ns: int | None, bytes: int) -> str:
    return f"{verb or '-'} {bytes} bytes in {took_ns} ns"


CALL = Family(
    "call",
    record({"took_ns": "<u8", "hit": "u1"}),
    (Kind("call", "a question was answered", color="33", loud=True, text=told),),
)
COLUMNS = (
    field_column("took_ns", ("call",), "integer", "how long", missing=equal("took_ns", 0)),
    field_column("hit", ("call",), "boolean", "known", lambda part: part.rows["hit"] != 0),
    derived_column("verb", ("call",), "string", "the first word of the question"),
    derived_column("cold", ("call",), "boolean", "the first of its connection"),
)


ENDS = {"local_port": 5, "remote_port": 80, "pid": 7, "comm": b"sh"}
EVENTS = [
    {**ENDS, "ts_ns": 1_000, "payload": b"GET /a", "kind": NUMBERS["send"]},
    {**ENDS, "ts_ns": 2_500, "payload": b"200", "kind": NUMBERS["recv"]},
    {**ENDS, "ts_ns": 3_000, "payload": b"", "kind": NUMBERS["send"]},
    {**ENDS, "ts_ns": 3_000, "payload": b"404 ", "kind": NUMBERS["recv"]},
    {**ENDS, "ts_ns": 4_000, "payload": b"PUT /b", "kind": NUMBERS["send"]},
]


class Calls(StatefulStage):
    """Makes a call of each pair of messages; one without an answer is dropped at the end."""

    def __init__(self) -> None:
        self._made = 0
        self._open: list[Part] = []

    def __call__(self, batch: Batch) -> Batch:
        calls = []
        for part in batch.parts:
            for index in range(len(part)):
                one = part.take(slice(index, index + 1))
                if one.rows["kind"][0] == NUMBERS["send"]:
                    self._open.append(one)
                elif self._open:
                    calls.append(self._call(self._open.pop(), one))
        return Batch((*batch.parts, *calls), batch.clock_offset_ns)

    def _call(self, question: Part, answer: Part) -> Part:
        self._made += 1
        rows = rows_from(answer.rows, "call")
        rows["took_ns"] = answer.rows["ts_ns"] - question.rows["ts_ns"]
        rows["hit"] = self._made == 1
        verb = question.payloads()[0].split(b" ")[0].decode()
        return Part(
            rows,
            derived={
                "verb": np.ma.MaskedArray(np.array([verb], object), [not verb]),
                "cold": np.ma.MaskedArray(np.array([self._made == 1]), [False]),
            },
            context=answer.context,
        )

    def account(self) -> Account:
        """Return what was made, and what is not answered yet."""
        entry = Entry.of_stage("call", self._made, dropped=len(self._open))
        return Account((entry,), {"open": len(self._open)}, ("a call was dropped: wait longer",))


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    """Register the family, in one place."""
    register(CALL, COLUMNS)
    yield
    unregister("call")


@pytest.fixture
def stage() -> Calls:
    return Calls()


@pytest.fixture
def batch(stage: Calls) -> Batch:
    return through((stage,), Batch([messages(*EVENTS)], OFFSET_NS))


FIRST = {"kind": "call", "pid": 7, "bytes": 3, "took_ns": 1_500, "hit": True, "verb": "GET",
         "cold": True}  # fmt: skip
SECOND = {"kind": "call", "pid": 7, "bytes": 4, "took_ns": None, "hit": False, "verb": None,
          "cold": False}  # fmt: skip


def calls(objects: list[dict[str, object]]) -> list[dict[str, object]]:
    found = [each for each in objects if each["kind"] == "call"]
    return [{name: each[name] for name in FIRST} for each in found]


def test_in_json(batch: Batch) -> None:
    file = io.BytesIO()
    JsonLines(file).write(batch)
    objects = [json.loads(line) for line in file.getvalue().splitlines()]
    assert calls(objects) == [FIRST, SECOND]
    assert [each["kind"] for each in objects] == ["send", "recv", "call", "send", "recv", "call",
                                                  "send"]  # fmt: skip
    assert "took_ns" not in objects[0]
    assert "cause" not in objects[2]


@pytest.mark.parametrize("color", [False, True])
def test_in_text(batch: Batch, color: bool) -> None:
    file = io.BytesIO()
    Text(file, color=color).write(batch)
    line = next(line for line in file.getvalue().decode().splitlines() if "call" in line)
    end = "GET 3 bytes in 1500 ns" + ("\x1b[0m" if color else "")
    assert line.endswith(end)
    assert ("\x1b[33mcall" in line) is color


def test_in_text_of_columns(batch: Batch) -> None:
    """A kind without words of its own shows what only it has."""
    unregister("call")
    register(Family("call", CALL.record, (Kind("call", "a call"),)), COLUMNS)
    file = io.BytesIO()
    Text(file, color=False).write(batch)
    assert b" took_ns 1500 hit True verb GET cold True\n" in file.getvalue()
    assert b" hit False cold False\n" in file.getvalue()


def test_in_csv(batch: Batch) -> None:
    file = io.BytesIO()
    Csv(file).write(batch)
    rows = list(csv.DictReader(io.StringIO(file.getvalue().decode())))
    shown = [[row[name] for name in FIRST] for row in rows if row["kind"] == "call"]
    assert shown == [["call", "7", "3", "1500", "true", "GET", "true"],
                     ["call", "7", "4", "", "false", "", "false"]]  # fmt: skip


def test_in_arrow(batch: Batch) -> None:
    pytest.importorskip("pyarrow")
    assert calls(batch.to_arrow().to_pylist()) == [FIRST, SECOND]


def test_as_columns_and_as_events(batch: Batch) -> None:
    took = np.ma.MaskedArray(batch["took_ns"])
    assert took.mask.tolist() == [True, True, False, True, True, True, True]
    assert took[2] == 1_500
    first, second = (event for event in batch if event.kind == "call")
    assert {name: first[name] for name in FIRST} == FIRST
    assert second["took_ns"] is None
    assert first.as_dict()["verb"] == "GET"
    assert "took_ns=1500" in repr(first)
    assert next(iter(batch))["took_ns"] is None
    with pytest.raises(KeyError):
        first["no such column"]


def test_in_a_recording(batch: Batch, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    back = list(Recording(written(tmp_path / "calls.tcpr", [batch])))
    assert [event.as_dict() for event in back] == [event.as_dict() for event in batch]


def test_in_a_recording_where_its_number_is_another(batch: Batch, tmp_path: Path) -> None:
    """Recordings go by the names of kinds: numbers are given as families are registered."""
    pytest.importorskip("pyarrow")
    path = written(tmp_path / "calls.tcpr", [batch])
    before = NUMBERS["call"]
    unregister("call")
    register(Family("other", record({"more": "<u8"}), (Kind("other", "another"),)), ())
    try:
        register(CALL, COLUMNS)
        assert NUMBERS["call"] != before
        objects = [event.as_dict() for event in Recording(path)]
        assert calls([dict(each) for each in objects]) == [FIRST, SECOND]
    finally:
        unregister("other")


def test_what_is_not_registered_is_left_out(batch: Batch, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = written(tmp_path / "calls.tcpr", [batch])
    unregister("call")
    try:
        kinds = [event.kind for event in Recording(path)]
    finally:
        register(CALL, COLUMNS)
    assert kinds == ["send", "recv", "send", "recv", "send"]


@pytest.mark.parametrize(
    ("chosen", "shown"),
    [("call", ["call", "call"]), ("recv", ["recv", "recv"]), ("call,send", ["send", "call"] * 2)],
)
def test_kinds_are_chosen_behind_the_stage_that_needs_others(
    chosen: str, shown: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyarrow")
    answered = Batch([messages(*EVENTS[:4])], OFFSET_NS)
    path, out = written(tmp_path / "messages.tcpr", [answered]), tmp_path / "out.jsonl"
    monkeypatch.setattr(options, "stage_for", lambda _name: Calls())
    arguments = [str(path), "--stage", "calls", "--kinds", chosen, "-o", str(out)]
    for command, form in ((replay.command, "--format"), (export.command, "--to")):
        result = CliRunner().invoke(command, [*arguments, form, "json"], standalone_mode=False)
        assert result.exception is None
        assert [json.loads(line)["kind"] for line in out.read_text().splitlines()] == shown


def test_in_sql(batch: Batch, tmp_path: Path) -> None:
    pytest.importorskip("duckdb")
    with Database(written(tmp_path / "calls.tcpr", [batch])) as database:
        names, rows = database.query("SELECT verb, took_ns, hit, pid FROM calls ORDER BY time")
        assert names == ["verb", "took_ns", "hit", "pid"]
        assert list(rows) == [("GET", 1_500, True, 7), (None, None, False, 7)]
        _, counts = database.query("SELECT kind, count(*) FROM events GROUP BY 1 ORDER BY 1")
        assert list(counts) == [("call", 2), ("recv", 2), ("send", 3)]


def test_in_the_page_on_events() -> None:
    page = generate_docs.render()
    section = page[page.index("## The call family: call") :]
    assert "| `took_ns` | integer or null | how long |" in section
    assert "| `cold` | boolean or null | the first of its connection |" in section
    assert json.loads(section.split("```json\n")[1].split("\n")[0])["kind"] == "call"


def test_in_counts(batch: Batch) -> None:
    file = io.BytesIO()
    count = Count(file)
    count.write(batch)
    count.close()
    counted = {line.split()[1]: line.split()[4] for line in file.getvalue().decode().splitlines()}
    assert counted["call"] == "2"


def test_in_the_ledger(batch: Batch, stage: Calls) -> None:
    assert len(batch) == 7
    assert len(close((stage,))) == 0
    counters = np.zeros(wire.KIND_COUNT, wire.COUNTERS)
    ledger = close_accounts(("send",), counters, {}, Received())
    ledger = ledger.with_account(accounts((stage,)))
    assert ledger.entries[-1].balances()
    assert ledger.lost == 1
    header, row, *remarks = ledger.lines()
    told = dict(zip(header.split(), row.split(), strict=True))
    assert {name: count for name, count in told.items() if count != "0"} == {
        "kind": "call", "seen": "3", "submitted": "2", "map_full": "1", "received": "2"
    }  # fmt: skip
    assert remarks == ["a call was dropped: wait longer"]


def test_the_family_goes_as_it_came() -> None:
    number = NUMBERS["call"]
    unregister("call")
    try:
        assert kind_name(number) == f"unknown-{number}"
        assert "call" not in generate_docs.render()[-2_000:]
        with pytest.raises(ValueError, match="dtype"):
            Part(np.zeros(1, CALL.record))
        assert b"took_ns" not in recorded([])
    finally:
        register(CALL, COLUMNS)


@pytest.mark.parametrize(
    ("family", "columns", "why"),
    [
        (CALL, (), "a family call already"),
        (Family("b", record({"b": "u1"}), (Kind("send", ""),)), (), "a kind send already"),
        (Family("b", CALL.record, (Kind("b", ""),)), (), "same record as call"),
        (Family("b", np.dtype([("b", "u1")]), (Kind("b", ""),)), (), "does not begin"),
        (Family("b", record({"took_ns": "<u4"}), (Kind("b", ""),)), (), "another type in call"),
        (Family("b", record({"b": ">u2"}), (Kind("b", ""),)), (), "must be a number"),
        (Family("b", record({"b": "?"}), (Kind("b", ""),)), (), "must be a number"),
        (Family("b", record({"b": "u1"}), (Kind("b", ""),)),
         (field_column("bytes", ("b",), "integer", ""),), "a column bytes already"),
        (Family("b", record({"b": "u1"}), (Kind("b", ""),)),
         (field_column("c", ("b",), "integer", ""),), "no field c"),
        (Family("b", record({"b": "u1"}), (Kind("b", ""),)),
         (field_column("b", ("a",), "integer", ""),), "not one of b"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(
    family: Family, columns: tuple[Column, ...], why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        register(family, columns)
    assert NO_KIND not in NUMBERS.values()
    assert "b" not in NUMBERS
