"""Adding events up: series, their bounds and their ends, whose they are, what connections moved."""

from __future__ import annotations

import errno
import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tcprism.events import Batch, Part
from tcprism.events import _wire as wire
from tcprism.events._wire import Cause, EventKind
from tcprism.events.context import Context
from tcprism.events.context import Owner as ContextOwner
from tcprism.events.ledger import Ledger
from tcprism.events.names import STATES
from tcprism.events.requests import STATES as STATES_OF_REQUESTS
from tcprism.events.requests import UNKNOWN_NS, VIEWS
from tcprism.metrics import instruments as i
from tcprism.metrics.aggregate import Metrics
from tcprism.metrics.instruments import IDENTITY, INSTRUMENTS, Instrument
from tcprism.metrics.owners import Listeners, Owners, Peers, Processes
from tcprism.metrics.series import LINGER, OTHER, Series
from tcprism.metrics.totals import Totals
from tests.unit.records import packed, rows_of

EPHEMERAL = (32_768, 60_999)
LISTEN, ESTABLISHED = STATES.index("LISTEN"), STATES.index("ESTABLISHED")
HERE, THERE = {"local_ip": "10.0.0.1"}, {"remote_ip": "10.0.0.2"}
CLIENT = {**HERE, **THERE, "pid": 7, "comm": b"curl", "local_port": 40_000, "remote_port": 80}
SERVER = {**HERE, **THERE, "pid": 8, "comm": b"nginx", "local_port": 80, "remote_port": 40_000}


def made(most: dict[str, Any] | None = None) -> Metrics:
    """Return metrics of a machine whose processes are called as their threads."""
    return Metrics(Owners(Peers(most or {}), Processes(proc=False), Listeners(EPHEMERAL)))


def part(family: str, *events: dict[str, Any]) -> Part:
    return Part(rows_of(family, events))


def values(metrics: Metrics, instrument: Instrument) -> dict[tuple[str, ...], float]:
    """Return the values of an instrument by what of their keys is not empty."""
    rows = dict(metrics.families())[instrument]
    return {tuple(filter(None, row.key)): row.value for row in rows}


def numbers(*ids: int) -> Any:
    return np.array(ids, np.intp)


def test_what_is_a_series_too_many_is_counted_and_goes_to_other() -> None:
    series = Series(i.RETRANSMITS, most=2)
    keys = [(name, *[""] * 8) for name in ("a", "b", "c", "d")]
    series.add(numbers(0, 1, 2, 3, 3), keys, np.ones(5))
    other = (OTHER,) * 9
    assert {row.key: row.value for row in series.rows()} == {keys[0]: 1, keys[1]: 1, other: 3}
    assert series.others == 3


def test_a_bound_belongs_to_its_bucket() -> None:
    series = Series(i.HTTP_SERVER)
    seconds = [0.005, 0.0050001, 10.0, 11.0]
    series.add(numbers(0, 0, 0, 0), [("x",) * 11], np.array(seconds), np.arange(1, 5))
    (row,) = series.rows()
    assert row.value == pytest.approx(sum(seconds))
    assert row.buckets == (1, 1, *[0] * 11, 1, 1)
    assert [(each.value, each.socket) for each in row.exemplars if each] == [
        (value, socket) for socket, value in enumerate(seconds, 1)
    ]


def test_a_series_ends_some_time_after_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    series = Series(i.RESETS)
    keys = [("one", container, *[""] * 7) for container in ("lives", "gone")]
    lives = keys[0][: len(IDENTITY)]
    series.add(numbers(0, 1), keys, np.ones(2))
    series.expire(lives.__eq__)
    assert len(series) == 2
    later = time.monotonic() + LINGER + 1
    monkeypatch.setattr(time, "monotonic", lambda: later)
    series.expire(lives.__eq__)
    assert [row.key for row in series.rows()] == keys[:1]
    series.add(numbers(0, 1), keys, np.ones(2))
    assert [row.value for row in series.rows()] == [2, 1]


def test_a_process_that_becomes_another_program_has_its_name() -> None:
    shell = subprocess.Popen(
        ["sh", "-c", "echo; read _; exec cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert shell.stdin
    assert shell.stdout
    with shell:
        shell.stdout.readline()
        processes = Processes(proc=True)
        assert processes.name(shell.pid, b"of a thread") == "sh"
        processes.look()
        assert processes.name(shell.pid, b"cat") == "sh"
        shell.stdin.write(b"\nmeow\n")
        shell.stdin.flush()
        shell.stdout.readline()  # by cat
        processes.look()
        assert processes.name(shell.pid, b"cat") == "cat"


def test_a_series_does_not_outlive_its_pod_though_others_have_the_same_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    comm = Path("/proc/self/comm").read_bytes().strip()
    old = ContextOwner(pod_uid="old", namespace="shop", workload="deployment/cart")
    pods = {1: old, 2: replace(old, pod_uid="new")}
    metrics = Metrics(Owners(Peers({}), Processes(proc=True), Listeners(EPHEMERAL)))
    for pid, cgroup in ((ended.pid, 1), (os.getpid(), 2)):
        lost = part("loss", {**CLIENT, "pid": pid, "comm": comm, "cgroup_id": cgroup, "segs": 1})
        metrics.write(Batch([replace(lost, context=Context(pods.__getitem__))]))
    shown = [(comm.decode(), pod, "shop", "deployment/cart", "80") for pod in ("old", "new")]
    assert [key[:5] for key in values(metrics, i.RETRANSMITS)] == shown
    later = time.monotonic() + LINGER + 1
    monkeypatch.setattr(time, "monotonic", lambda: later)
    metrics.account(Ledger(()))
    assert [key[:5] for key in values(metrics, i.RETRANSMITS)] == shown[1:]


def test_a_gauge_has_only_what_is_there_now() -> None:
    series = Series(i.OPEN)
    keys: Sequence[Any] = [(name, *[""] * 8) for name in ("a", "b")]
    series.set({keys[0]: 3, keys[1]: 4})
    series.set({keys[1]: 5})
    assert [(row.key, row.value) for row in series.rows()] == [(keys[1], 5)]


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("10.1.4.9", "database"),
        ("10.1.5.9", "private"),
        ("127.0.0.1", "loopback"),
        ("::1", "loopback"),
        ("fe80::1", "link-local"),
        ("fd00::1", "private"),
        ("192.0.2.1", "public"),
        ("2001:db8::1", "public"),
        ("2001:db8:7::1", "database"),
    ],
)
def test_peers_are_of_the_first_class_that_has_their_address(address: str, name: str) -> None:
    peers = Peers({"database": ["10.1.4.0/24", "2001:db8:7::/48"]})
    (found,) = peers.of(np.array([packed(address)], np.uint8))
    assert peers.names[found] == name


def test_the_port_is_the_listeners_at_both_ends() -> None:
    metrics = made()
    fields = {"new_state": ESTABLISHED}
    accepted = {**SERVER, **fields, "kind": EventKind.ACCEPT}
    connected = {**CLIENT, **fields, "kind": EventKind.CONNECT}
    metrics.write(Batch([part("connection", accepted, connected, connected)]))
    assert values(metrics, i.SUCCESSES) == {
        ("nginx", "80", "private", "server"): 1,
        ("curl", "80", "private", "client"): 2,
    }


@pytest.mark.parametrize(
    ("local", "remote", "port"),
    [
        (40_000, 5_432, ("5432",)),  # a client's, and of no listener here
        (40_000, 50_000, ()),  # a server elsewhere at a port that clients have
        (5_432, 40_000, ()),  # nobody is known to listen at it
        (80, 40_000, ("80",)),  # a listener's
    ],
)
def test_a_port_is_shown_only_if_it_is_proven(
    local: int, remote: int, port: tuple[str, ...]
) -> None:
    metrics = made()
    listener = {**SERVER, "remote_port": 0, "state": LISTEN, "socket": 1}
    again = {**HERE, **THERE, "pid": 9, "comm": b"x", "local_port": local, "remote_port": remote}
    lost = {**again, "segs": 2, "cause": Cause.TLP}
    metrics.write(Batch([part("snapshot", listener), part("loss", lost)]))
    assert values(metrics, i.RETRANSMITS) == {("x", *port, "private", "tail_loss_probe"): 2}


def test_what_the_kernel_refused_to_send_again_is_no_retransmission() -> None:
    """RetransSegs does not count it; its tracepoint tells of it since Linux 6.16."""
    metrics = made()
    again = {**CLIENT, "segs": 1, "cause": Cause.TLP}
    metrics.write(Batch([part("loss", again, {**again, "error": -errno.EBUSY})]))
    assert values(metrics, i.RETRANSMITS) == {("curl", "80", "private", "tail_loss_probe"): 1}


def test_spurious_retransmissions_and_drops_are_of_their_own() -> None:
    metrics = made()
    undo = {**CLIENT, "kind": EventKind.UNDO, "undone": 3}
    drop = {**CLIENT, "kind": EventKind.DROP, "outgoing": 1, "segs": 0}
    metrics.write(Batch([part("loss", undo, drop)]))
    assert values(metrics, i.RETRANSMITS) == {("curl", "80", "private", "spurious"): 3}
    assert values(metrics, i.DROPS) == {("curl", "80", "private", "transmit"): 1}


def snapshot(socket: int, ts_ns: int, **totals: int) -> dict[str, Any]:
    return {**CLIENT, "socket": socket, "ts_ns": ts_ns, "state": ESTABLISHED, **totals}


def closed(socket: int, ts_ns: int, elapsed_ns: int, **totals: int) -> dict[str, Any]:
    fields = {"kind": EventKind.CLOSE, "elapsed_ns": elapsed_ns, "socket": socket}
    return {**CLIENT, **fields, "ts_ns": ts_ns, **totals}


def test_a_connection_older_than_us_counts_from_the_first_snapshot() -> None:
    totals = Totals()
    first, change = totals.snapshot(part("snapshot", snapshot(1, 100, bytes_sent=1000)))
    assert (len(first), change["bytes_sent"].tolist()) == (1, [0])
    twice = part("snapshot", *[snapshot(1, 200, bytes_sent=1500)] * 2)  # two processes hold it
    one, change = totals.snapshot(twice)
    assert (len(one), change["bytes_sent"].tolist()) == (1, [500])
    change = totals.close(part("connection", closed(1, 300, 250, bytes_sent=1600)))
    assert change["bytes_sent"].tolist() == [100]
    assert totals.unaccounted == 0


def test_a_connection_between_two_snapshots_counts_whole() -> None:
    totals = Totals()
    totals.snapshot(part("snapshot"))
    totals.snapshot(part("snapshot", snapshot(1, 100)))
    change = totals.close(part("connection", closed(2, 300, 50, bytes_received=70)))
    assert change["bytes_received"].tolist() == [70]


def test_what_a_connection_had_before_us_is_not_made_up() -> None:
    totals = Totals()
    totals.snapshot(part("snapshot", snapshot(1, 100)))
    change = totals.close(
        part(
            "connection",
            closed(2, 300, 250, bytes_sent=9),  # established before the first snapshot
            closed(3, 300, wire.ELAPSED_UNKNOWN, bytes_sent=9),
        )
    )
    assert change["bytes_sent"].tolist() == [0, 0]
    assert totals.unaccounted == 2


def test_a_closed_socket_that_lingers_counts_once() -> None:
    totals = Totals()
    totals.snapshot(part("snapshot", snapshot(1, 100)))
    totals.snapshot(part("snapshot", snapshot(1, 200, bytes_sent=50)))
    for moment in range(300, 310):
        totals.snapshot(part("snapshot", snapshot(2, moment)))
    change = totals.close(part("connection", closed(1, 400, 350, bytes_sent=60)))
    assert change["bytes_sent"].tolist() == [10]


def test_a_connection_has_no_cookie_until_somebody_asks_for_it() -> None:
    totals = Totals()
    totals.snapshot(part("snapshot", snapshot(0, 100, inode=77, bytes_sent=50)))
    other = snapshot(0, 200, inode=78, bytes_sent=7)
    listener = snapshot(0, 200, inode=79) | {"remote_port": 0}
    rows = (snapshot(0, 200, inode=77, bytes_sent=60), other, listener)
    found, change = totals.snapshot(part("snapshot", *rows))
    assert dict(zip(found.rows["inode"].tolist(), change["bytes_sent"], strict=True)) == {
        77: 10,
        78: 0,  # it has begun later: where it ends without a cookie, all of it is counted then
    }
    named = (snapshot(5, 300, inode=77, bytes_sent=64), snapshot(6, 300, inode=78, bytes_sent=8))
    found, change = totals.snapshot(part("snapshot", *named))
    assert change["bytes_sent"].tolist() == [4, 8]
    change = totals.close(part("connection", closed(5, 400, 390, bytes_sent=65)))
    assert change["bytes_sent"].tolist() == [1]
    assert totals.unaccounted == 0


@pytest.mark.parametrize("cookie", [0, 5])
def test_a_connection_without_a_cookie_until_its_end_counts_once(cookie: int) -> None:
    """As before Linux 5.12, where the hooks cannot make one, or where `close` alone is traced."""
    totals = Totals()
    totals.snapshot(part("snapshot", snapshot(1, 100)))
    counted = 0
    for moment in (200, 300):
        _, change = totals.snapshot(part("snapshot", snapshot(0, moment, inode=8, bytes_sent=50)))
        counted += int(change["bytes_sent"].sum())
    change = totals.close(part("connection", closed(cookie, 400, 250, bytes_sent=60)))
    assert counted + change["bytes_sent"].tolist()[0] == 60
    assert totals.unaccounted == 0


def test_what_is_forgotten_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more connections than are remembered, no byte counts twice."""
    monkeypatch.setattr("tcprism.metrics.totals.REMEMBERED", 2)
    totals = Totals()
    sent: dict[int, int] = dict.fromkeys((1, 2, 3, 4), 0)

    def look(moment: int, **bytes_sent: int) -> None:
        rows = [snapshot(int(name[1:]), moment, bytes_sent=n) for name, n in bytes_sent.items()]
        found, change = totals.snapshot(part("snapshot", *rows))
        for number, more in zip(found.rows["socket"].tolist(), change["bytes_sent"], strict=True):
            sent[number] += more

    look(100)
    look(200, s1=10, s2=20, s3=30)
    look(300, s1=11, s2=20, s3=33)  # the third could not be remembered: it may be old
    assert sent == {1: 11, 2: 20, 3: 30, 4: 0}
    assert totals.unaccounted == 0
    change = totals.close(part("connection", closed(2, 310, 150, bytes_sent=20)))
    assert change["bytes_sent"].tolist() == [0]
    look(400, s1=11, s3=33)  # now it can
    look(500, s1=11, s3=37)
    assert sent[3] == 30 + (37 - 33)
    assert totals.unaccounted == 1
    change = totals.close(part("connection", closed(4, 600, 50, bytes_sent=7)))  # between two
    assert change["bytes_sent"].tolist() == [7]


@pytest.mark.parametrize("instrument", INSTRUMENTS, ids=lambda each: each.name)
def test_names_follow_opentelemetrys_rules(instrument: Instrument) -> None:
    name = instrument.prometheus
    assert name.isascii()
    assert name.replace("_", "").isalnum()
    assert name.endswith("_total") == (instrument.kind == "counter")
    unit = {"s": "seconds", "By": "bytes", "1": "ratio"}.get(instrument.unit, "")
    assert name.removesuffix("_total").endswith(unit)
    assert (instrument.kind == "histogram") == bool(instrument.buckets)
    assert list(instrument.buckets) == sorted(instrument.buckets)
    assert {*instrument.attributes} <= i.ATTRIBUTES.keys()


def test_calls_of_a_sample_count_for_all() -> None:
    """One of 8 connections is recorded: each of its calls stands for 8."""
    call = {
        **CLIENT, "protocol": b"grpc", "view": VIEWS.index("client"), "sampling": 3,
        "request_state": STATES_OF_REQUESTS.index("complete"), "request_ns": 20_000_000,
    }  # fmt: skip
    said = {"method": "POST", "resource": "/shop.Cart/Add", "status": "OK"}
    derived = {name: np.ma.MaskedArray(np.array([text], object)) for name, text in said.items()}
    metrics = made()
    metrics.write(Batch([part("request", call).derive(**derived)]))
    (row,) = dict(metrics.families())[i.RPC_CLIENT]
    assert row.key[-4:] == ("grpc", "shop.Cart/Add", "OK", "")
    assert sum(row.buckets) == 8
    assert row.value == pytest.approx(8 * 0.020)
    assert sum(values(metrics, i.REQUEST_COUNT).values()) == 8
    assert not values(metrics, i.RPC_SERVER)


def test_requests_of_which_not_all_was_seen_are_counted_apart() -> None:
    """One of 2 connections is recorded; nobody has answered what is pending."""
    calls = [
        CLIENT | {
            "protocol": b"http", "view": VIEWS.index("both"), "sampling": 1,
            "request_state": STATES_OF_REQUESTS.index(state), "request_ns": took,
        }
        for state, took in (
            ("complete", 5_000_000), ("complete", UNKNOWN_NS), ("gap", UNKNOWN_NS),
            ("gap", UNKNOWN_NS), ("partial", UNKNOWN_NS), ("pending", 7), ("no response", 7),
        )
    ]  # fmt: skip
    made_of = np.ma.MaskedArray(np.array(["x"] * len(calls), object))
    derived = dict.fromkeys(("method", "resource", "status"), made_of)
    metrics = made()
    metrics.write(Batch([part("request", *calls).derive(**derived)]))
    for role in ("client", "server"):
        found = {
            key[-1]: value
            for key, value in values(metrics, i.REQUESTS_INCOMPLETE).items()
            if key[-3:-1] == (role, "http")
        }
        assert found == {"complete": 2, "gap": 4, "partial": 2}
    assert sum(values(metrics, i.REQUEST_COUNT).values()) == 2 * 2


def test_words_that_no_server_knows_are_no_operations() -> None:
    """A client may send any, and a password by mistake."""
    words = [("redis", "SECRET", False, state) for state in ("no response", "gap", "partial")]
    words += [("redis", word, True, "complete") for word in ("SECRET", "AUTH", "GET")]
    words += [("redis", f"WORD{n}", True, "complete") for n in range(2_000)]
    words += [("redis", "GET", False, "complete"), ("postgresql", "INSERT", True, "complete")]
    calls = [
        CLIENT | {
            "protocol": protocol.encode(), "view": VIEWS.index("client"), "failed": failed,
            "request_state": STATES_OF_REQUESTS.index(state), "request_ns": 1_000_000,
        }
        for protocol, _, failed, state in words
    ]  # fmt: skip
    said = {"method": [word for _, word, _, _ in words], "status": ["x"] * len(words)}
    said["resource"] = said["status"]
    derived = {name: np.ma.MaskedArray(np.array(texts, object)) for name, texts in said.items()}
    metrics = made()
    metrics.write(Batch([part("request", *calls).derive(**derived)]))
    rows = dict(metrics.families())[i.DATABASE]
    found = {(*row.key[-3:-1], bool(row.key[-1])): sum(row.buckets) for row in rows}
    assert found == {
        ("redis", "_OTHER", True): 2_001,
        ("redis", "GET", False): 1,
        ("redis", "GET", True): 1,
        ("redis", "AUTH", True): 1,
        ("postgresql", "INSERT", True): 1,
    }
