"""The terminal of the screens, which may go away at any moment."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import sys
import termios
from collections.abc import Callable, Iterator
from typing import Any

from textual.app import App
from textual.drivers.linux_driver import LinuxDriver

from tcprism import interrupts

_LOOK = 0.5  # seconds between checks that the terminal is still there

# Mouse, bracketed paste, focus and keyboard reports off; lines wrap, no alternate screen, a cursor.
_PLAIN = "\x1b[?1000;1002;1003;1006;1015;1016;1004;2004;2048l\x1b[<u\x1b[?7;25h\x1b[?1049l"


class Driver(LinuxDriver):
    """Textual's own, but for SIGCONT where nothing was suspended.

    The kernel sends it with SIGHUP. Textual would start a second set of threads, and end only that.
    """

    _suspended = False

    def _sigtstp_application(self, *signal: Any) -> None:
        self._suspended = True
        super()._sigtstp_application(*signal)

    def _sigcont_application(self, *signal: Any) -> None:
        if self._suspended:
            self._suspended = False
            super()._sigcont_application(*signal)


class TerminalApp(App[None]):
    """A program with screens that ends in good order by a signal, and with its terminal."""

    def __init__(self) -> None:
        super().__init__(driver_class=Driver)

    def on_mount(self) -> None:
        if (signals := interrupts.fileno()) >= 0:
            asyncio.get_running_loop().add_reader(signals, self._end)
        if not self.is_headless and os.isatty(0):
            self.set_interval(_LOOK, self._end_with_terminal)

    def _end(self) -> None:
        asyncio.get_running_loop().remove_reader(interrupts.fileno())
        self.exit()

    def _end_with_terminal(self) -> None:
        """Under nohup no signal comes, and Textual would wait for ever to write."""
        poll = select.poll()
        poll.register(0, 0)
        if poll.poll(0):
            self.exit()


@contextlib.contextmanager
def restored() -> Iterator[None]:
    """Have the terminal as it was where the process is ended before `with` is left."""
    with interrupts.cleaning(_restorer()):
        yield


def _restorer() -> Callable[[], None]:
    try:
        before = termios.tcgetattr(0)
    except termios.error:
        return lambda: None

    def restore() -> None:
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, _PLAIN.encode())
        termios.tcsetattr(0, termios.TCSANOW, before)

    return restore
