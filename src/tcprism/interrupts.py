"""Termination signals (SIGINT, SIGTERM, SIGHUP), handled from the first line on.

A signal comes at any moment, in a callback from C too, where an exception would be lost. So nothing
is raised where it comes. It is noted, and whoever works in steps asks between them: `check` and
`step` raise then, in plain sight. Who traces waits for `fileno` instead and ends in good order.
Where neither comes in time, as in a load that takes the kernel long, a thread ends the process:
what it has in the kernel goes with it, and `cleaning` says what else must be done.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_STARTING = 0.3  # seconds in which a start is to be given up
SILENCE = 30.0  # seconds without a sign of life, once the work has begun: hooks may take long to go
_ONE_WISH = 0.5  # seconds in which two signals are one wish: shells and sudo pass them on
_LOOK = 0.05  # seconds
_LEAVE = 0xFF  # no signal: the thread is to end


class Interrupted(BaseException):
    """A signal asked for the end before the work was done."""


class _Watch:
    """What is known of signals while they are noted; `asked` is the number of the first."""

    def __init__(self) -> None:
        self.asked = 0
        self.silence: float | None = None  # None: still starting
        self.alive = 0.0
        self.end_out, self._end_in = os.pipe()  # readable from the first signal on
        self._signals_out, self._signals_in = os.pipe()
        os.set_blocking(self._signals_in, False)
        # Python's C code writes each signal there at once, whatever the main thread is at.
        signal.set_wakeup_fd(self._signals_in, warn_on_full_buffer=False)
        self._handlers = {number: signal.getsignal(number) for number in _NUMBERS}
        for number, handler in self._handlers.items():
            if (number, handler) != (signal.SIGHUP, signal.SIG_IGN):  # as nohup wants it
                signal.signal(number, self._note)
        self.start()

    def start(self) -> None:
        """Watch over the end in a thread."""
        self._thread = threading.Thread(target=self._run, daemon=True, name="signals")
        self._thread.start()

    def leave(self) -> None:
        """End the thread; signals are still noted."""
        os.write(self._signals_in, bytes([_LEAVE]))
        self._thread.join()

    def _note(self, number: int, _frame: FrameType | None = None) -> None:
        if not self.asked:
            self.asked = number
            os.write(self._end_in, b"1")

    def restore(self) -> None:
        """Let signals do what they did before."""
        signal.set_wakeup_fd(-1)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def close(self) -> None:
        """Note no more."""
        self.restore()
        os.close(self._signals_in)
        self._thread.join()
        for descriptor in (self._signals_out, self.end_out, self._end_in):
            os.close(descriptor)

    def _run(self) -> None:
        """See to it that the end comes; a second wish, later, does not wait for it."""
        first = self._next(None)
        since = time.monotonic()
        if first is None:
            return
        self._note(first)
        alive, silent = self.alive, 0.0
        while silent < (_STARTING if self.silence is None else self.silence):
            looked = time.monotonic()
            number = self._next(_LOOK)
            now = time.monotonic()
            if number is None:
                return
            again = number in (signal.SIGINT, signal.SIGTERM)
            if again and now - since > _ONE_WISH:
                break
            # Where the whole process stood still, for a machine that stalls, nobody was silent.
            silent += min(now - looked, 2 * _LOOK)
            if self.alive != alive:
                alive, silent = self.alive, 0.0
        _end_now(first)

    def _next(self, patience: float | None) -> int | None:
        """Return the next of our signals, 0 when none came in time, None when noting ended."""
        while select.select([self._signals_out], [], [], patience)[0]:
            number = os.read(self._signals_out, 1)
            if not number or number[0] == _LEAVE:
                return None
            if number[0] in _NUMBERS:
                return number[0]
        return 0


_watch: _Watch | None = None
_cleaners: list[Callable[[], object]] = []


def note_signals() -> None:
    """Note signals until the process ends. For the main thread of a program of ours."""
    global _watch
    _watch = _Watch()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _NUMBERS)  # tcprism-python holds them until now


@contextlib.contextmanager
def noted() -> Iterator[None]:
    """Note signals, in the main thread, from `with` to its end, if that is not done already."""
    global _watch
    if _watch:
        yield
        return
    _watch = _Watch()
    try:
        yield
    finally:
        _watch.close()
        _watch = None


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Have no thread of ours: what a thread gives up, it gives up for itself and its threads."""
    if not _watch:
        yield
        return
    _watch.leave()
    try:
        yield
    finally:
        _watch.start()


def unnoted() -> None:
    """In a new process: let signals do what they did before."""
    if _watch:
        _watch.restore()


def asked() -> int:
    """Return the number of the first signal, 0 when there was none."""
    return _watch.asked if _watch else 0


def fileno() -> int:
    """Return a descriptor that is readable from the first signal on, -1 where none is noted."""
    return _watch.end_out if _watch else -1


def check() -> None:
    """Raise Interrupted between two steps of a start, when a signal came."""
    if _watch and _watch.asked and _watch.silence is None:
        raise Interrupted("interrupted while starting")


def alive(silence: float = SILENCE) -> None:
    """Tell that the start is over and the work goes on; say so again within `silence` seconds.

    From now on whoever works sees to the end, by `fileno` or `step`.
    """
    if _watch:
        _watch.silence, _watch.alive = silence, time.monotonic()


def progress() -> None:
    """Tell that the work goes on, amid a part of it that takes long on a busy machine."""
    if _watch:
        _watch.alive = time.monotonic()


def step() -> None:
    """Be alive, and raise Interrupted when a signal came."""
    alive()
    if asked():
        raise Interrupted("interrupted: the output ends early")


def sleep(seconds: float) -> None:
    """Sleep, but not after a signal."""
    if _watch:
        select.select([_watch.end_out], [], [], seconds)
        step()
    else:
        time.sleep(seconds)


def wait_for(descriptor: int) -> bool:
    """Wait until a file can be read from; False: a signal came first."""
    if not _watch:
        return True
    return descriptor in select.select([descriptor, _watch.end_out], [], [])[0] and not asked()


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Have handlers of signals run after `with`, for in a callback from C what they raise is lost.

    In a program of somebody else they do raise, Python's own for SIGINT above all. They run in the
    main thread only.
    """
    came: list[tuple[int, FrameType | None]] = []
    handlers: dict[int, Callable[[int, FrameType | None], object]] = {}
    if threading.current_thread() is threading.main_thread():
        handlers = {n: h for n in signal.valid_signals() if callable(h := signal.getsignal(n))}
    try:
        for number in handlers:
            signal.signal(number, lambda *which: came.append(which))
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for which in came:
            handlers[which[0]](*which)


@contextlib.contextmanager
def cleaning(clean: Callable[[], object]) -> Iterator[None]:
    """Have `clean` called where the process is ended before `with` is left, in another thread."""
    _cleaners.append(clean)
    try:
        yield
    finally:
        _cleaners.remove(clean)


def _end_now(number: int) -> None:
    for clean in reversed(_cleaners):
        with contextlib.suppress(Exception):
            clean()
    starting = _watch is None or _watch.silence is None
    said = "while starting" if starting else "before it could end in good order"
    with contextlib.suppress(OSError):
        os.write(2, f"tcprism: interrupted {said}\n".encode())
    os._exit(128 + number)
