"""Sinks: whatever a record holds, what is written is sound."""

import csv
import io
import json
import re
from base64 import b64decode
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcprism.events import FAMILIES, KINDS, Batch, Part
from tcprism.events._wire import EventKind, MessageFlag
from tcprism.events.context import Context
from tcprism.events.kinds import RECORDS
from tcprism.sinks import Sink
from tcprism.sinks.count import Count
from tcprism.sinks.csv_lines import Csv
from tcprism.sinks.json_lines import JsonLines
from tcprism.sinks.text import RESET, Text

from .records import MAKERS, connections, deliveries, losses, messages, segments

OFFSET = 1_767_225_600_000_000_000
SGR = re.compile(r"\x1b\[[0-9;]*m")


def written(make: Any, batch: Batch) -> str:
    file = io.BytesIO()
    sink: Sink = make(file)
    sink.write(batch)
    sink.close()
    return file.getvalue().decode("ascii")


def random_part(family: str, seed: int, count: int, payload: bool, any_kind: bool) -> Part:
    random = np.random.default_rng(seed)
    dtype = RECORDS[family]
    rows = np.frombuffer(bytearray(random.bytes(count * dtype.itemsize)), dtype)
    if not any_kind:
        rows["kind"] = random.choice([KINDS.index(kind) for kind in FAMILIES[family]], count)
    return Part(rows, random.integers(0, 256, (count, 64), np.uint8) if payload else None)


def random_batch(seed: int, counts: list[int], payload: bool, offset: int, any_kind: bool) -> Batch:
    parts = [
        random_part(family, seed + number, count, payload and family == "message", any_kind)
        for number, (family, count) in enumerate(zip(FAMILIES, counts, strict=True))
    ]
    return Batch(parts, offset)


def random_batches(any_kind: bool) -> st.SearchStrategy[Batch]:
    """Return batches of random bytes; `any_kind` leaves the kind to chance too."""
    return st.builds(
        random_batch,
        st.integers(0, 1 << 32),
        st.lists(st.integers(0, 20), min_size=len(FAMILIES), max_size=len(FAMILIES)),
        st.booleans(),
        st.integers(-(1 << 62), 1 << 62),
        st.just(any_kind),
    )


@given(random_batches(any_kind=True))
def test_json_of_records_of_no_kind_parses(batch: Batch) -> None:
    lines = written(JsonLines, batch).splitlines()
    assert [json.loads(line)["ts_ns"] for line in lines] == batch["ts_ns"].tolist()


@pytest.mark.parametrize("make", [JsonLines, partial(Text, color=False)])
def test_sockets_that_differ_in_their_interface_only(make: Any) -> None:
    """Some hooks do not know the socket, and a link-local address is there on every link."""
    address = {"family": 6, "local_ip": "fe80::1", "remote_ip": "fe80::2", "netns": 1}
    interfaces = Context(interface=lambda _netns, index: f"eth{index}")
    part = segments(*({**address, "scope_id": index} for index in (1, 2, 1)))
    lines = written(make, Batch([replace(part, context=interfaces)])).splitlines()
    found = [re.findall(r'"scope_id":(\d)|fe80::1%eth(\d)', line)[0] for line in lines]
    assert ["".join(each) for each in found] == ["1", "2", "1"]


@given(random_batches(any_kind=False))
def test_json_of_random_records_parses_and_equals_the_events(batch: Batch) -> None:
    lines = written(JsonLines, batch).splitlines()
    assert [json.loads(line) for line in lines] == [event.as_dict() for event in batch]
    for line, event in zip(lines, batch, strict=True):
        assert list(json.loads(line)) == list(event.columns)


@given(random_batches(any_kind=True), st.sampled_from(["text", "hex", "none"]), st.booleans())
def test_text_of_random_records_has_no_control_characters(
    batch: Batch, style: Literal["text", "hex", "none"], color: bool
) -> None:
    text = written(lambda file: Text(file, color=color, style=style), batch)
    plain = SGR.sub("", text) if color else text
    assert re.search(r"[^\n -~]", plain) is None
    events = [line for line in plain.splitlines() if not line.startswith(" ")]
    assert len(events) == len(batch)


def test_json_of_text_payload_with_quotes() -> None:
    payload = b'{"key": "C:\\\\dir"}\r\n'
    (event,) = map(
        json.loads, written(JsonLines, Batch([messages({"payload": payload})])).split("\n")[:-1]
    )
    assert event["payload_text"] == '{"key": "C:\\\\\\\\dir"}\\x0d\\x0a'


def test_identities_are_not_mixed_up() -> None:
    """Texts are remembered by identity; each differing field must make another one."""
    varied: dict[str, Any] = {
        "socket": 2, "cgroup_id": 3, "pid": 4, "tid": 5, "uid": 6, "netns": 7, "comm": b"other",
        "local_ip": "192.0.2.9", "remote_ip": "192.0.2.8", "local_port": 9, "remote_port": 10,
        "owner_source": 1, "family": 6,
    }  # fmt: skip
    base = {"pid": 1, "comm": b"base"}
    events = [base, *({**base, name: value} for name, value in varied.items()), base]
    kinds = {
        family: [{**base, "kind": KINDS.index(kind)} for kind in kinds]
        for family, kinds in FAMILIES.items()
    }
    batch = Batch([make(*events, *kinds[family]) for family, make in MAKERS.items()])
    for make in (JsonLines, lambda file: Text(file, color=False)):
        file = io.BytesIO()
        sink = make(file)
        sink.write(batch)
        sink.write(batch)
        half = file.getvalue()[: len(file.getvalue()) // 2]
        assert file.getvalue() == half * 2
    lines = [json.loads(line) for line in written(JsonLines, batch).splitlines()]
    assert lines == [event.as_dict() for event in batch]


def test_more_identities_than_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    for bound in ("CACHE_ENTRIES", "IDENTITIES"):
        monkeypatch.setattr(f"tcprism.sinks.lines.{bound}", 3)
    events = [{"pid": 1 + number % 5, "comm": b"c%d" % number} for number in range(20)]
    batch = Batch([messages(*events)])
    lines = [json.loads(line) for line in written(JsonLines, batch).splitlines()]
    assert lines == [event.as_dict() for event in batch]


def test_more_events_than_are_written_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tcprism.sinks.lines.EVENTS_AT_ONCE", 4)
    batch = Batch([messages(*({"ts_ns": 5 * i} for i in range(9))), segments({"ts_ns": 17})])
    times = [json.loads(line)["ts_ns"] for line in written(JsonLines, batch).splitlines()]
    assert times == [0, 5, 10, 15, 17, 20, 25, 30, 35, 40]


@pytest.mark.parametrize("make", [JsonLines, lambda file: Text(file, color=True)])
def test_empty_batch_writes_nothing(make: Any) -> None:
    assert written(make, Batch([])) == ""


def test_sinks_let_a_broken_pipe_rise() -> None:
    class Broken(io.BytesIO):
        def write(self, data: Any) -> int:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        JsonLines(Broken()).write(Batch([messages({})]))


def test_a_payload_cannot_fake_a_line_of_ours() -> None:
    fake = b"x\n12:00:00.000000 send\n  ... 1 of 2 bytes"
    text = written(lambda file: Text(file, color=False), Batch([messages({"payload": fake})]))
    assert [line[:4] == "    " for line in text.splitlines()] == [False, True, True, True]


def test_colors_of_a_line_end_with_it() -> None:
    parts = [
        make(*({"kind": KINDS.index(kind)} for kind in FAMILIES[family]))
        for family, make in MAKERS.items()
    ]
    batch = Batch(parts)
    for line in written(lambda file: Text(file, color=True), batch).splitlines():
        assert line.count("\x1b[") == 2
        assert line.count(RESET) == 1
    assert "\x1b" not in written(lambda file: Text(file, color=False), batch)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def count_rows(text: str) -> list[list[str]]:
    return [line.split()[1:] for line in text.splitlines()]


def test_count_prints_rates_and_totals_each_second() -> None:
    clock, file = Clock(), io.BytesIO()
    sink = Count(file, clock)
    peek = {"kind": EventKind.RECV, "bytes": 1000, "flags": MessageFlag.PEEK}
    sink.write(Batch([messages({"bytes": 10}, {"bytes": 20}, peek), segments({"bytes": 5})]))
    assert file.getvalue() == b""
    clock.now += 2
    sink.write(Batch([]))
    assert count_rows(file.getvalue().decode()) == [
        ["kind", "events/s", "bytes/s", "events", "bytes"],
        ["send", "1", "15", "2", "30"],
        ["recv", "0", "0", "1", "0"],
        ["transmit", "0", "2", "1", "5"],
    ]
    file.truncate(0)
    clock.now += 1
    sink.write(Batch([messages({"bytes": 70})]))
    assert count_rows(file.getvalue().decode().lstrip("\0"))[0] == ["send", "1", "70", "3", "100"]


def test_count_prints_what_is_left_when_it_ends() -> None:
    parts = [deliveries({"bytes": 5}), losses({"bytes": 7}), connections({}, {})]
    rows = count_rows(written(Count, Batch(parts)))[1:]
    assert [[kind, events, size] for kind, *_, events, size in rows] == [
        ["acked", "1", "5"],
        ["retransmit", "1", "7"],
        ["connect", "2", "0"],
    ]


def test_count_of_nothing() -> None:
    assert len(written(Count, Batch([])).splitlines()) == 1


@given(random_batches(any_kind=True))
def test_count_of_random_records(batch: Batch) -> None:
    written(Count, batch)


@pytest.mark.parametrize("first", "=+-@")
def test_csv_has_no_formulas(first: str) -> None:
    """Spreadsheets calculate what begins so (OWASP, CSV injection); numbers are left alone."""
    hostile = f"{first}1+1"
    part = messages({"comm": hostile.encode(), "payload": hostile.encode(), "error": -1, "pid": 1})
    (row,) = csv.DictReader(io.StringIO(written(Csv, Batch([part]))))
    assert row["comm"] == row["payload_text"] == f"'{hostile}"
    assert b64decode(row["payload"]) == hostile.encode()
    assert row["pid"] == "1"
