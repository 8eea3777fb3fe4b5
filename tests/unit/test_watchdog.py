"""What the watchdog of `tcprism serve` notices."""

from __future__ import annotations

import socket
from contextlib import closing
from pathlib import Path

import pytest

from tcprism.cli import watchdog as module
from tcprism.cli.watchdog import Notify, Watchdog
from tcprism.events import Batch
from tcprism.events.ledger import Entry, Ledger


class Clocks:
    """Those of a machine: seconds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.set, self.slept = 100.0, 1e9, 0.0
        self.opened = 0
        monkeypatch.setattr("tcprism.cli.watchdog.time.monotonic", lambda: self.now)
        monkeypatch.setattr("tcprism.cli.watchdog.time.time", lambda: self.now + self.set)
        monkeypatch.setattr(
            "tcprism.cli.watchdog.time.clock_gettime", lambda clock: self.now + self.slept
        )
        self.watchdog = Watchdog(lambda: self.opened)

    def second(self, seen: int = 0, seconds: float = 1.0) -> dict[str, int]:
        """Let some time pass; return what is counted by then, but zeros."""
        self.now += seconds
        self.watchdog.write(Batch(()))
        entries = (Entry.of_stage("connect", seen), Entry.of_stage("accept", 0))
        self.watchdog.account(Ledger(entries))
        return {name: count for name, count in self.watchdog.dropped().counts.items() if count}


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    return Clocks(monkeypatch)


def test_all_is_well(clocks: Clocks) -> None:
    for _ in range(100):
        assert clocks.second() == {}
    assert clocks.watchdog.well()


def test_a_clock_that_is_set(clocks: Clocks) -> None:
    clocks.second()
    clocks.set -= 3600
    assert clocks.second() == {"clock_steps": 1}
    assert clocks.second() == {"clock_steps": 1}


def test_a_machine_that_slept(clocks: Clocks) -> None:
    clocks.second()
    clocks.slept += 600  # CLOCK_MONOTONIC stands still, the others go on
    clocks.set += 600
    assert clocks.second() == {"suspensions": 1}


def test_a_process_that_was_stopped(clocks: Clocks) -> None:
    clocks.now += 20
    assert not clocks.watchdog.well()
    assert clocks.second() == {"stalls": 1}
    assert clocks.watchdog.well()


def test_hooks_that_see_nothing(clocks: Clocks) -> None:
    clocks.second(seen=5)
    for _ in range(40):
        clocks.opened += 2
        clocks.second(seen=5)
    assert clocks.second(seen=5) == {"silent_hooks": 1}
    assert not clocks.watchdog.well()
    assert "start it again" in clocks.watchdog.dropped().remarks[0]
    for seen in range(7, 80):
        clocks.second(seen=seen)
    assert clocks.watchdog.well()


def test_a_quiet_namespace_accuses_nobody(clocks: Clocks) -> None:
    for _ in range(100):
        assert clocks.second(seen=5) == {}


def test_systemd_hears_only_that_all_is_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    well = [True]
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        notify = Notify(lambda: well[0])
        notify.account(Ledger(()))
        assert systemd.recv(100) == b"WATCHDOG=1"
        well[0] = False
        notify.account(Ledger(()))
        with pytest.raises(BlockingIOError):
            systemd.recv(100)


def test_the_kernels_own_counts() -> None:
    before = module.opened_here()
    with (
        closing(socket.create_server(("127.0.0.1", 0))) as server,
        closing(socket.create_connection(server.getsockname())),
    ):
        server.accept()[0].close()
    assert module.opened_here() >= before + 2
