"""`tcprism serve` as its users run it, and what it tells Prometheus."""

from __future__ import annotations

import re
import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.tracer import PATIENCE, TCPRISM, note_skipped, parse_ledger

Sample = tuple[str, dict[str, str], float]

_SAMPLE = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)")
_MISSED = re.compile(
    r'^tcprism_events_total\{tcprism_event_kind="(\w+)",tcprism_event_outcome="missed"\} (\S+)',
    re.MULTILINE,
)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def samples(text: str) -> list[Sample]:
    """Read Prometheus' text format."""
    found = [_SAMPLE.match(line) for line in text.splitlines() if not line.startswith("#")]
    return [(m[1], dict(_LABEL.findall(m[2] or "")), float(m[3])) for m in found if m]


class Server:
    """One run of `tcprism serve`, with its hooks on.

    On a host of another name if one is given, and with another folder as /run. It records
    everything however busy the machine is, unless `arguments` or `usual_budget` want something
    else.
    """

    def __init__(
        self,
        *arguments: str,
        host: str = "",
        runs: Path | None = None,
        usual_budget: bool = False,
    ) -> None:
        budget = () if usual_budget else ("--max-overhead", "100%")
        command = [TCPRISM, "serve", "--prometheus", "127.0.0.1:0", "-v", *budget, *arguments]
        if host:
            renamed = 'hostname "$0" && exec "$@"'
            command = ["unshare", "--uts", "sh", "-c", renamed, host, *command]
        if runs:
            mounted = 'mount --bind "$0" /run && exec "$@"'
            command = ["unshare", "--mount", "sh", "-c", mounted, str(runs), *command]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,  # the address of the page, if there is one
            stderr=subprocess.PIPE,
            text=True,
        )
        self.said: list[str] = []
        self._missed: dict[str, int] = {}
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self._ready.wait(PATIENCE)
        if not self.said or not self.said[-1].startswith("serving"):
            self.process.wait(PATIENCE)
            raise AssertionError("\n".join(self.said))

    def _read(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self.said.append(line.rstrip("\n"))
            if line.startswith("metrics at "):
                self.url = line.split()[2].removesuffix("/metrics")
            if line.startswith("serving"):
                self._ready.set()
        self._ready.set()

    def get(self, path: str = "/metrics", accept: str = "*/*") -> str:
        """Return what it answers."""
        request = urllib.request.Request(self.url + path, headers={"Accept": accept})
        with urllib.request.urlopen(request, timeout=60) as answer:
            text: str = answer.read().decode()
        self._note({kind: int(float(count)) for kind, count in _MISSED.findall(text)})
        return text

    def _note(self, counts: dict[str, int]) -> None:
        missed = {kind: count for kind, count in counts.items() if count}
        if missed != self._missed:
            self._missed = missed
            note_skipped(f"serve[{self.process.pid}]", missed)

    def sum(self, name: str, **labels: str) -> float:
        """Return the sum of the series of a metric that have these labels."""
        return sum(
            value
            for its, has, value in samples(self.get())
            if its == name and labels.items() <= has.items()
        )

    def await_sum(self, expected: float, name: str, **labels: str) -> None:
        """Wait until a sum is what it should be, or for long enough."""
        await_equal(lambda: self.sum(name, **labels), expected)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, wait for the end, return the exit status."""
        self.process.send_signal(number)
        status = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        with suppress(AssertionError):  # it may have ended before there was a ledger
            self._note({kind: row["missed"] for kind, row in parse_ledger(self.said).items()})
        return status


def await_equal(ask: Callable[[], float], expected: float) -> None:
    """Ask until the answer is what is expected; after two minutes that is what it is."""
    deadline = time.monotonic() + 120
    while (found := ask()) != expected and time.monotonic() < deadline:
        time.sleep(0.1)
    assert found == expected


@contextmanager
def serving(
    *arguments: str, host: str = "", runs: Path | None = None, usual_budget: bool = False
) -> Iterator[Server]:
    """Serve while the body runs."""
    server = Server(*arguments, host=host, runs=runs, usual_budget=usual_budget)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait()


def statuses_of_threads(pid: int) -> list[str]:
    """Return what /proc says of each thread of a process."""
    statuses = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            statuses.append((task / "status").read_text())
    return statuses
