"""From snapshots to rates, histories, groups and an order."""

from typing import Any

import numpy as np
import pytest

from tcprism.diagnosis.connections import BY_COLUMN, COLUMNS, order, shown_columns
from tcprism.diagnosis.groups import GROUPINGS, group
from tcprism.diagnosis.table import HISTORY, Table, advance, empty
from tcprism.diagnosis.watch import Watch
from tcprism.events import Part

from .records import snapshots

SECOND = 1_000_000_000
LISTEN = 10


def row(inode: int = 1, at: float = 0, **fields: Any) -> dict[str, Any]:
    ends = {"local_ip": "192.0.2.1", "remote_ip": "198.51.100.7", "local_port": 40_000 + inode}
    who = {"pid": 7, "comm": b"curl", "remote_port": 443, "state": 1, "sndbuf": 87_040}
    return ends | who | {"inode": inode, "ts_ns": 100 * SECOND + round(at * SECOND)} | fields


def tables(*looks: list[dict[str, Any]]) -> Table:
    """Return the table of the last of some snapshots."""
    table: Table | None = None
    for look in looks:
        table = advance(table, snapshots(*look))
    assert table
    return table


def test_rates_are_per_second() -> None:
    table = tables(
        [row(bytes_sent=1000, bytes_received=10)],
        [row(at=2, bytes_sent=5000, bytes_retrans=1000, bytes_received=70)],
    )
    assert table.rate_out.tolist() == [1500]
    assert table.rate_in.tolist() == [30]


def test_there_is_no_rate_at_the_first_look() -> None:
    table = tables([row(bytes_sent=1000)])
    assert table.rate_out.tolist() == [0]
    assert BY_COLUMN["limit"].texts(table, np.array([0])) == [""]


def test_a_new_socket_has_counted_since_the_look_before() -> None:
    table = tables([row(1)], [row(1, at=1), row(2, at=1, bytes_sent=300)])
    assert table.rate_out.tolist() == [0, 300]


def test_a_number_used_again_is_another_socket() -> None:
    table = tables([row(bytes_sent=9000)], [row(at=1, bytes_sent=100)])
    assert table.rate_out.tolist() == [100]
    assert table.history[0, 0, -2] == 0


def test_holders_are_counted_and_the_socket_is_one() -> None:
    table = tables([row(5), row(4), row(5, pid=8), row(5, pid=9)])
    assert table.rows["inode"].tolist() == [4, 5]
    assert table.holders.tolist() == [1, 3]
    assert BY_COLUMN["owner"].texts(table, np.array([1])) == ["curl[7]+2"]


def test_histories_follow_their_sockets() -> None:
    table = tables(
        [row(1), row(3)],
        [row(1, at=1, bytes_sent=10), row(2, at=1, bytes_sent=20), row(3, at=1, bytes_sent=30)],
        [row(2, at=2, bytes_sent=20), row(3, at=2, bytes_sent=130)],
    )
    assert table.throughput.shape == (2, HISTORY)
    assert table.throughput[:, -2:].tolist() == [[20, 0], [30, 100]]


def test_retransmit_share_is_of_the_history() -> None:
    table = tables(
        [row(data_segs_out=100, total_retrans=50)],
        [row(at=1, data_segs_out=200, total_retrans=51)],
        [row(at=2, data_segs_out=300, total_retrans=53)],
    )
    assert table.retransmit_share.tolist() == [pytest.approx(3 / 200)]


def test_counters_may_wrap() -> None:
    table = tables([row(segs_out=2**32 - 1)], [row(at=1, segs_out=4)])
    assert table.change.delta("segs_out").tolist() == [5]


def test_index() -> None:
    table = tables([row(2), row(4)])
    assert [table.index(inode) for inode in (1, 2, 3, 4, 5)] == [None, 0, None, 1, None]
    assert empty().index(1) is None


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.name)
def test_every_column_shows_and_sorts(column: Any) -> None:
    table = tables([row(1), row(2, state=LISTEN, remote_port=0)], [row(1, at=1), row(2, at=1)])
    assert len(column.texts(table, np.array([1, 0]))) == 2
    assert sorted(order(column.keys(table)).tolist()) == [0, 1]
    assert column.texts(empty(), np.zeros(0, int)) == []


def test_numbers_sort_with_the_largest_first_and_texts_by_the_alphabet() -> None:
    assert order(np.array([1.0, 3.0, 2.0])).tolist() == [1, 2, 0]
    assert order(np.array(["b", "c", "a"], object)).tolist() == [2, 0, 1]


def test_listeners_have_nothing_of_a_connection() -> None:
    lists = {"state": LISTEN, "remote_port": 0, "unread": 3, "unsent": 7, "unacked": 7}
    table = tables([row(1, srtt_us=99, **lists)])
    for column in COLUMNS:
        if column.name in ("rtt", "retransmits", "send_queue", "receive_queue"):
            assert column.texts(table, np.array([0])) == [""], column.name


def test_namespaces_are_shown_where_there_are_several() -> None:
    one = tables([row(1, netns=7), row(2, netns=7)])
    two = tables([row(1, netns=7), row(2, netns=8)])
    assert "netns" not in {column.name for column in shown_columns(one)}
    (column,) = (column for column in shown_columns(two) if column.name == "netns")
    assert column.texts(two, np.arange(2)) == ["7", "8"]


@pytest.mark.parametrize(
    ("grouping", "labels"),
    [
        ("process", ["curl[7]", "ssh[9]"]),
        ("remote host", ["198.51.100.7"]),
        ("port", ["22", "443"]),
        ("container", ["-"]),
    ],
)
def test_groups(grouping: str, labels: list[str]) -> None:
    others = {"pid": 9, "comm": b"ssh", "remote_port": 22}
    looks = [
        [row(n, at=at, bytes_sent=at * 100, **(others if n == 3 else {})) for n in (1, 2, 3)]
        for at in (0, 1)
    ]
    groups = group(tables(*looks), grouping, np.arange(3))
    assert groups.labels == labels
    assert groups.members.sum() == 3
    assert groups.rate_out.sum() == pytest.approx(300)


def test_all_groupings_take_an_empty_table() -> None:
    assert [len(group(empty(), grouping, np.arange(0))) for grouping in GROUPINGS] == [0] * 4


def test_watch_keeps_what_a_connection_was() -> None:
    watch = Watch(snapshots(row(1, bytes_sent=0)))
    for at in (1, 2):
        assert watch.look(tables([row(1, at=at, bytes_sent=at * 10), row(2)]))
    assert watch.rates("bytes_sent").tolist() == [10, 10]
    assert watch.change().new_bytes.tolist() == [20]
    assert not watch.look(tables([row(2)]))


def test_watch_knows_its_events() -> None:
    watch = Watch(snapshots(row(1)))
    part: Part = snapshots(row(1), row(1, netns=5), row(2), row(1, remote_ip="198.51.100.8"))
    assert watch.concerns(part).tolist() == [True, False, False, False]
