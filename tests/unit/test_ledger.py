"""The ledger: every event is accounted for, or the ledger says so."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tcprism.errors import RecordingError
from tcprism.events import KINDS, Batch
from tcprism.events._wire import COUNTERS, EventKind
from tcprism.events.ledger import Account, Entry, Ledger, Received, close_accounts
from tcprism.recording.notes import decode, decode_ledger, encode, encode_ledger
from tcprism.sources.plan import PROBES

from .records import losses, messages

BALANCED = Entry(
    kind="send",
    seen=100,
    filtered=40,
    sampled_out=0,
    submitted=50,
    ring_full=5,
    ring_busy=2,
    map_full=3,
    missed=5,
    received=50,
    bytes=12345,
    payload_cut=678,
)


NOTHING_LOST: dict[str, Any] = {"ring_full": 0, "ring_busy": 0, "map_full": 0, "missed": 0}


def counters(**kinds: dict[str, int]) -> Any:
    """Return the kernel's counters, a row a kind."""
    rows = np.zeros(len(KINDS), COUNTERS)
    for kind, values in kinds.items():
        for name, value in values.items():
            rows[name][KINDS.index(kind)] = value
    return rows


def test_a_balanced_account() -> None:
    assert BALANCED.balances()
    assert BALANCED.lost == 15


@pytest.mark.parametrize(
    "field", ["seen", "filtered", "submitted", "ring_full", "ring_busy", "map_full", "received"]
)
@pytest.mark.parametrize("change", [-1, 1])
def test_one_event_too_many_or_too_few_is_noticed(field: str, change: int) -> None:
    change_one: dict[str, Any] = {field: getattr(BALANCED, field) + change}
    assert not replace(BALANCED, **change_one).balances()


@pytest.mark.parametrize("field", ["missed", "bytes", "payload_cut"])
def test_what_is_no_event_seen_does_not_matter_to_the_balance(field: str) -> None:
    other: dict[str, Any] = {field: 999}
    assert replace(BALANCED, **other).balances()


def test_lines_are_a_table() -> None:
    ledger = Ledger((replace(BALANCED, **NOTHING_LOST), replace(BALANCED, kind="retransmit")))
    header, *rows = ledger.whole()[:3]
    assert len({len(line) for line in (header, *rows)}) == 1
    names = header.split()
    for entry, row in zip(ledger.entries, rows, strict=True):
        assert dict(zip(names, row.split(), strict=True)) == {
            name: str(getattr(entry, name)) for name in names
        }
    assert names == list(Entry.__dataclass_fields__)
    assert ledger.lost == BALANCED.lost


@pytest.mark.parametrize(
    ("field", "advice"),
    [
        ("ring_full", "use a larger --ring-size"),
        ("ring_busy", "a larger --ring-size does not help"),
        ("map_full", "no room"),
        ("missed", "hook"),
    ],
)
def test_each_loss_gets_its_advice(field: str, advice: str) -> None:
    quiet = replace(BALANCED, **NOTHING_LOST)
    lost: dict[str, Any] = {field: 1}
    ledger = Ledger((quiet, replace(quiet, kind="recv", **lost)))
    (line,) = ledger.whole()[3:]
    assert advice in line
    assert ledger.lines() == ledger.whole()
    assert ledger.lost == 1
    assert len(Ledger((quiet,)).whole()) == 2


def test_one_line_where_nothing_was_lost() -> None:
    quiet = Entry("send", 26601, 26593, 0, 8, 0, 0, 0, 0, 8, 680, 0)
    idle = Entry("drop", 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    many = Entry("recv", 12026, 0, 0, 12026, 0, 0, 0, 0, 12026, 1, 0)
    assert Ledger((quiet, idle, many)).lines() == ["12,034 events, none lost"]
    assert Ledger((replace(quiet, received=1),)).lines() == ["1 event, none lost"]
    assert Ledger((idle,)).lines() == ["no events: filters turned all 3 away"]
    assert Ledger((replace(idle, seen=0),)).lines() == ["no events: none was seen"]


def test_only_what_came_or_was_lost_has_a_row() -> None:
    idle = Entry("drop", 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    lost = Entry("recv", 5, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0)
    lines = Ledger((BALANCED, idle, lost)).lines()
    assert [line.split()[0] for line in lines[:3]] == ["kind", "send", "recv"]
    assert not any("drop" in line for line in lines)


def test_sends_that_could_not_be_joined_are_no_losses() -> None:
    """The send is there; what is missing is when it was acknowledged."""
    acked = Entry("acked", 1044, 0, 0, 1000, 0, 0, 44, 0, 1000, 0, 0)
    ledger = Ledger((acked,))
    assert ledger.lost == 0
    assert acked.balances()
    first, second = ledger.lines()
    assert first == "1,000 events, none lost"
    assert second.startswith("44 sends are without their acked")
    mixed = Ledger((acked, Entry("send", 3, 0, 0, 1, 0, 0, 2, 0, 1, 0, 0)))
    assert mixed.lost == 2
    assert any("no room" in line for line in mixed.lines())


def test_accounts_of_the_kinds_that_were_traced() -> None:
    received = Received()
    three = messages({"bytes": 10}, {"bytes": 20}, {"kind": EventKind.RECV, "bytes": 7})
    received.add(Batch([three]))
    kernel = counters(
        send={"seen": 5, "filtered": 3, "submitted": 2, "payload_cut": 4},
        recv={"seen": 2, "ring_full": 1, "submitted": 1},
        transmit={"seen": 9, "submitted": 9},
    )
    missed = {"send": 3, "transmit": 8}
    ledger = close_accounts(("recv", "send"), kernel, missed, received)
    assert ledger.entries == (
        Entry("send", 5, 3, 0, 2, 0, 0, 0, missed=3, received=2, bytes=30, payload_cut=4),
        Entry("recv", 2, 0, 0, 1, 1, 0, 0, missed=0, received=1, bytes=7, payload_cut=0),
    )
    assert all(entry.balances() for entry in ledger.entries)


def test_each_kind_of_a_probe_is_made_by_a_program_of_each_hook() -> None:
    """So that a run that the kernel skips is missed in the ledger of its kind."""
    for probe in PROBES:
        for hook in probe.hooks:
            made = {kind for program in hook.programs for kind in program.kinds}
            assert set(probe.kinds) <= made <= set(KINDS), hook.name


kinds_and_bytes = st.tuples(st.sampled_from([0, 1]), st.integers(0, 2**32 - 1))


@settings(max_examples=30)
@given(st.lists(st.lists(kinds_and_bytes, max_size=20), max_size=4), st.integers(0, 5))
def test_received_counts_records_and_bytes(
    parts: list[list[tuple[int, int]]], retransmits: int
) -> None:
    received = Received()
    calls = (messages(*({"kind": kind, "bytes": size} for kind, size in part)) for part in parts)
    received.add(Batch(list(calls)))
    received.add(Batch([losses(*[{"bytes": 100}] * retransmits)]))
    records = [record for part in parts for record in part]
    for kind in (EventKind.SEND, EventKind.RECV):
        weights = [size for found, size in records if found == kind]
        assert (received.events[kind], received.bytes[kind]) == (len(weights), sum(weights))
    assert received.events[EventKind.TRANSMIT] == 0
    assert received.bytes[EventKind.RETRANSMIT] == 100 * retransmits


def read_back(values: dict[str, Any]) -> Ledger:
    """Return the ledger that a recording with such a note has."""
    return decode_ledger(decode(encode({"ledger": values})).ledger)


def test_what_stages_account_for_is_told_and_comes_back_from_a_recording() -> None:
    made = Entry("request", 3, 0, 0, 2, 0, 0, 1, 0, 2, 0, 0)
    account = Account((made,), {"pending": 4}, ("4 requests have no answer yet",))
    ledger = close_accounts(("send",), counters(), {}, Received()).with_account(account)
    assert ledger.entries[-1] == made
    assert ledger.lost == 1
    assert "4 requests have no answer yet" in ledger.lines()
    assert read_back(encode_ledger(ledger)) == ledger


def test_the_first_recordings_say_what_could_not_be_joined_in_a_field_of_its_own() -> None:
    ledger = read_back({"entries": [], "unremembered": 0, "unjoined": 3})
    assert ledger.counts == {"unjoined": 3}
    assert ledger.lines()[-1].startswith("3 retransmissions are without the send")
    assert read_back({"entries": [], "unjoined": 0}).remarks == ()


def test_what_a_recording_says_of_stages_is_not_trusted() -> None:
    values = {"entries": [], "counts": {"\x1b": 1}, "remarks": ["\x1b]0;x\n" + "a" * 9999] * 9}
    ledger = read_back(values)
    assert all(remark.isprintable() for remark in ledger.remarks)
    assert all(name.isprintable() for name in ledger.counts)
    assert len(ledger.remarks) == 9
    many = {"remarks": ["a"] * 999}
    for damaged in (
        many,
        {"counts": [1]},
        {"remarks": 3},
        {"counts": {"a": "b"}},
        {"unjoined": "x"},
    ):
        with pytest.raises(RecordingError):
            read_back({"entries": [], **damaged})
