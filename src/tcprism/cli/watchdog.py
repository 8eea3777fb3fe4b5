"""What goes wrong in months: clocks that are set, machines that sleep, hooks that fall silent."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tcprism.events import Batch
from tcprism.events.facts import Facts
from tcprism.events.ledger import Account, Ledger
from tcprism.sinks import Sink

_SILENCE = 15.0  # seconds without a look at the rings after which something is wrong
_STEP = 0.5  # seconds by which a clock moves against another before it is told
_EVERY = 30.0  # seconds between two looks at the kernel's own counts
_OPENED = 50  # connections of which a hook must have seen one


class Watchdog(Sink):
    """Counts what happens to clocks and hooks, and tells whether all is well.

    `opened` returns how many connections the kernel has opened and accepted in this network
    namespace. The hooks see those of all namespaces.
    """

    def __init__(self, opened: Callable[[], int] | None = None) -> None:
        self._opened = opened or opened_here
        self._at = time.monotonic()
        self._clocks = _clocks()
        self._counted: tuple[float, int, int] | None = None  # when; by the kernel; by the hooks
        self._silent = False
        self._others: list[Callable[[], bool]] = []
        self._counts = dict.fromkeys(("clock_steps", "suspensions", "stalls", "silent_hooks"), 0)

    def write(self, batch: Batch) -> None:
        """Take note that batches, though empty ones, come."""
        now = time.monotonic()
        self._counts["stalls"] += now - self._at > _SILENCE
        self._at = now

    def account(self, ledger: Ledger) -> None:
        """Compare clocks with each other, and what hooks have seen with what the kernel counts."""
        real, boot = _clocks()
        self._counts["clock_steps"] += (
            abs((real - boot) - (self._clocks[0] - self._clocks[1])) > _STEP
        )
        self._counts["suspensions"] += boot - self._clocks[1] > _STEP
        self._clocks = real, boot
        seen = [entry.seen for entry in ledger.entries if entry.kind in ("connect", "accept")]
        if len(seen) == 2:
            self._compare(sum(seen))

    def _compare(self, seen: int) -> None:
        now = time.monotonic()
        if self._counted and now - self._counted[0] < _EVERY:
            return
        opened = self._opened()
        if self._counted:
            silent = seen == self._counted[2] and opened - self._counted[1] >= _OPENED
            self._counts["silent_hooks"] += silent and not self._silent
            self._silent = silent
        self._counted = now, opened, seen

    def watch(self, well: Callable[[], bool]) -> None:
        """Have all be well only while this says so."""
        self._others.append(well)

    def well(self) -> bool:
        """Tell whether events are being read, hooks see what happens, and others are well."""
        reads = time.monotonic() - self._at < _SILENCE
        return reads and not self._silent and all(well() for well in self._others)

    def dropped(self) -> Account:
        """Return what has happened."""
        if not self._silent:
            return Account(counts=self._counts)
        remark = "hooks saw none of the connections that the kernel counts: start it again"
        return Account(counts=self._counts, remarks=(remark,))


class Notify(Sink):
    """Tells systemd that it has begun, is `well` and ends: sd_notify(3). Elsewhere does nothing.

    Made before sockets are refused.
    """

    def __init__(self, well: Callable[[], bool]) -> None:
        self._well = well
        self._socket: socket.socket | None = None
        if address := os.environ.get("NOTIFY_SOCKET"):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            with suppress(OSError):
                self._socket.connect("\0" + address[1:] if address[0] == "@" else address)

    def open(self, facts: Facts) -> None:
        """Say that the hooks are on."""
        self._say("READY=1")

    def write(self, batch: Batch) -> None:
        """Nothing."""

    def account(self, ledger: Ledger) -> None:
        """Say that it goes on, once a second: WatchdogSec may be longer."""
        if self._well():
            self._say("WATCHDOG=1")

    def close(self) -> None:
        """Say that it ends."""
        self._say("STOPPING=1")

    def _say(self, state: str) -> None:
        if self._socket:
            with suppress(OSError):  # nobody listens
                self._socket.send(state.encode(), socket.MSG_DONTWAIT)


def opened_here() -> int:
    """Return ActiveOpens and PassiveOpens of /proc/net/snmp."""
    lines = [line.split() for line in Path("/proc/net/snmp").read_bytes().splitlines()]
    names, values = (line[1:] for line in lines if line[0] == b"Tcp:")
    found = dict(zip(names, map(int, values), strict=True))
    return found[b"ActiveOpens"] + found[b"PassiveOpens"]


def _clocks() -> tuple[float, float]:
    """Return CLOCK_REALTIME and CLOCK_BOOTTIME as distances from CLOCK_MONOTONIC, seconds."""
    monotonic = time.monotonic()
    return time.time() - monotonic, time.clock_gettime(time.CLOCK_BOOTTIME) - monotonic
