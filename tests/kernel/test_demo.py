"""`tcprism demo`: shows every kind of event, and leaves nothing behind however it ends."""

import os
import re
import select
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tcprism.helpers import FOLDERS
from tests.support.tracer import PATIENCE, TCPRISM, parse_ledger

KINDS = {"send", "recv", "transmit", "retransmit", "connect", "accept", "close"}
EVENT = re.compile(r"[0-9:.]{15} (?P<kind>\w+) +(?:(?P<comm>demo-\w+)\[(?P<pid>\d+)\]|-) ")
LAST_BORN = "demo-uploader"


class Demo:
    """A run of the demo, and what it made."""

    def __init__(self, stderr: Path, *arguments: str, prefix: tuple[str, ...]) -> None:
        self._stderr = stderr
        command = [*prefix, TCPRISM, "demo", "-v", *arguments]
        with stderr.open("wb") as file:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=file, text=True)
        self.events = self._events()

    @property
    def stderr(self) -> list[str]:
        """What it has said so far."""
        return self._stderr.read_text().splitlines()

    def _events(self) -> Iterator[re.Match[str]]:
        assert self.process.stdout
        return filter(None, map(EVENT.match, self.process.stdout))

    def await_all(self) -> int:
        """Wait until all of its processes have been seen to live, and return the pid of one."""
        for event in self.events:
            if event["comm"] == LAST_BORN:
                return int(event["pid"])
        raise AssertionError("no event:\n" + "\n".join(self.stderr))

    def wait(self) -> int:
        """Wait for the end, reading on, and return the exit status."""
        for _ in self.events:
            pass
        return self.process.wait(PATIENCE)


def places_of(tool: str) -> set[str]:
    """Return all files of a program's name that could be started."""
    return {
        os.path.realpath(path) for folder in FOLDERS if os.path.exists(path := f"{folder}/{tool}")
    }


@contextmanager
def demo(tmp_path: Path, *arguments: str, prefix: tuple[str, ...] = ()) -> Iterator[Demo]:
    run = Demo(tmp_path / "stderr", *arguments, prefix=prefix)
    try:
        yield run
    finally:
        run.process.kill()
        run.process.wait()
        assert run.process.stdout
        run.process.stdout.close()


def members(netns: int) -> list[int]:
    """Return the processes in a network namespace."""
    found = []
    for path in Path("/proc").glob("[0-9]*/ns/net"):
        with suppress(OSError):
            if path.stat().st_ino == netns:
                found.append(int(path.parts[2]))
    return found


@contextmanager
def nothing_left_of(pid: int) -> Iterator[None]:
    """Check that the body ends the process, its network namespace and all others in it."""
    netns = os.stat(f"/proc/{pid}/ns/net").st_ino
    assert netns != os.stat("/proc/self/ns/net").st_ino, "the demo talks in our own namespace"
    pidfds = [os.pidfd_open(member) for member in members(netns)]
    assert len(pidfds) == 3, "not a server and two clients"
    try:
        yield
        for pidfd in pidfds:
            assert select.select([pidfd], [], [], PATIENCE)[0], "a process of the demo lives on"
    finally:
        for pidfd in pidfds:
            os.close(pidfd)
    assert not members(netns)
    assert f"net:[{netns}]" not in Path("/proc/self/mountinfo").read_text()


def test_every_kind(tmp_path: Path) -> None:
    """A newcomer sees all there is, retransmissions among it."""
    with demo(tmp_path, "--duration", str(PATIENCE)) as run:
        with nothing_left_of(run.await_all()):
            seen = set()
            for event in run.events:
                seen.add(event["kind"])
                if seen >= KINDS:
                    break
            run.process.send_signal(signal.SIGINT)
            assert run.wait() == 0
        assert seen >= KINDS
        ledger = parse_ledger(run.stderr)
    assert ledger["retransmit"]["received"] > 0
    assert f"{ledger['send']['received']} send" in "\n".join(run.stderr)
    for row in ledger.values():
        lost = row["ring_full"] + row["ring_busy"] + row["map_full"]
        assert row["received"] == row["submitted"] == row["seen"] - row["filtered"] - lost


@pytest.mark.native
def test_it_ends_by_itself(tmp_path: Path) -> None:
    """After its time, with only the kinds that were asked for."""
    with demo(tmp_path, "--duration", "3", "--kinds", "send,recv", "--loss", "0") as run:
        with nothing_left_of(run.await_all()):
            assert {event["kind"] for event in run.events} == {"send", "recv"}
            assert run.wait() == 0
        assert set(parse_ledger(run.stderr)) == {"send", "recv"}


@pytest.mark.native
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_after_a_signal(number: signal.Signals, tmp_path: Path) -> None:
    """Not even when the tracer cannot clean up."""
    with (
        demo(tmp_path, "--duration", str(PATIENCE)) as run,
        nothing_left_of(run.await_all()),
    ):
        run.process.send_signal(number)
        assert run.wait() == (-number if number == signal.SIGKILL else 0)


@pytest.mark.native
def test_nothing_is_left_when_the_reader_goes_away(tmp_path: Path) -> None:
    """As in `tcprism demo | head`."""
    with demo(tmp_path, "--duration", str(PATIENCE)) as run, nothing_left_of(run.await_all()):
        assert run.process.stdout
        run.process.stdout.close()
        assert run.process.wait(PATIENCE) == 0


@pytest.mark.native
def test_without_any_way_to_lose_packets(tmp_path: Path) -> None:
    """It goes on without loss and says which packages would help."""
    hidden = [path for tool in ("tc", "nft") for path in places_of(tool)]
    script = "".join(f"mount --bind /dev/null {path} && " for path in hidden) + 'exec "$0" "$@"'
    prefix = ("unshare", "--mount", "sh", "-c", script)
    with demo(tmp_path, "--duration", "1", prefix=prefix) as run:
        assert run.wait() == 0
    told = "\n".join(run.stderr)
    assert "install the package iproute2" in told
    assert "install the package nftables" in told
    assert parse_ledger(run.stderr)["send"]["received"] > 0
