"""What waits while a fleet's ClickHouse is away."""

from __future__ import annotations

import os
from pathlib import Path

from tcprism.fleet.outbox import Outbox, Spool


def _balances(box: Outbox) -> bool:
    waiting = 0
    while insert := box.next(0):
        waiting += insert.rows
        box.done(insert, inserted=True)
    return box.put_rows == box.inserted + box.dropped


def test_in_memory_the_oldest_goes_and_is_counted() -> None:
    box = Outbox(room=25)
    for number in range(4):
        box.put("losses", 1 + number, bytes(10))
    assert box.dropped == 1 + 2
    insert = box.next(0)
    assert insert is not None
    assert insert.rows == 3
    assert _balances(box)


def test_what_is_being_sent_is_not_dropped() -> None:
    box = Outbox(room=25)
    box.put("losses", 1, bytes(10))
    sent = box.next(0)
    assert sent is not None
    for number in range(3):
        box.put("losses", 10 + number, bytes(10))
    box.done(sent, inserted=True)
    assert (box.inserted, box.dropped) == (1, 10 + 11)
    assert _balances(box)


def test_on_disk_it_waits_for_the_next_run(tmp_path: Path) -> None:
    box = Outbox(Spool(tmp_path, 1000))
    for number in range(3):
        box.put("losses", 1 + number, b"%d" % number)
    box.spill()
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in tmp_path.iterdir())
    (tmp_path / "mine.arrow.new").write_text("cut")
    (tmp_path / "foreign").write_text("stays")
    later = Outbox(Spool(tmp_path, 1000))
    assert later.put_rows == 6
    later.put("requests", 9, b"new")
    found = []
    while insert := later.next(0):
        found.append((insert.table, insert.rows, insert.data))
        later.done(insert, inserted=True)
    expected = [
        ("losses", 1, b"0"),
        ("losses", 2, b"1"),
        ("losses", 3, b"2"),
        ("requests", 9, b"new"),
    ]
    assert found == expected
    assert os.listdir(tmp_path) == ["foreign"]


def test_the_spool_is_bounded(tmp_path: Path) -> None:
    box = Outbox(Spool(tmp_path, 25))
    for number in range(4):
        box.put("losses", 1 + number, bytes(10))
        box.spill()
    assert box.dropped == 1 + 2
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) == 20
    assert _balances(box)


def test_a_spool_that_cannot_be_written(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1000)
    tmp_path.rmdir()
    box = Outbox(spool, room=25)
    for number in range(4):
        box.put("losses", 1 + number, bytes(10))
        box.spill()
    assert box.dropped == 1 + 2
    assert "No such file" in box.trouble
    assert _balances(box)
