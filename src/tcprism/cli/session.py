"""A run from start to ledger: read, write, and stop for the first reason that arises."""

from __future__ import annotations

import select
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass

from tcprism import interrupts, pipeline
from tcprism.cli.command import Command
from tcprism.cli.output import Output, silence
from tcprism.errors import KernelRefused, OutputError
from tcprism.events import Batch
from tcprism.events.facts import Facts
from tcprism.sinks import Sink
from tcprism.sources import Source
from tcprism.stages import Stage
from tcprism.stages.limits import First

_LONGEST_WAIT = 3600.0  # seconds; poll() takes no more than 24 days


@dataclass(frozen=True, slots=True)
class Limits:
    """When to stop by itself: after so many events, after so many seconds."""

    count: int | None = None
    duration: float | None = None


class Stop:
    """Tells when to stop: a signal, the time, the command's end, a reader that went away."""

    def __init__(self, limits: Limits, output: Output | None, command: Command | None) -> None:
        self.count = limits.count
        self._deadline = None if limits.duration is None else time.monotonic() + limits.duration
        self._poll = select.poll()
        if output:
            self._poll.register(output.fileno(), 0)  # only errors: the reader of a pipe went away
        if command:
            self._poll.register(command.pidfd, select.POLLIN)
        self.reached = False
        self._noted = ExitStack()

    def __enter__(self) -> Stop:
        self._noted.enter_context(interrupts.noted())
        self._poll.register(interrupts.fileno(), select.POLLIN)
        interrupts.alive()
        return self

    def __exit__(self, *_: object) -> None:
        self._noted.close()

    def enough(self) -> None:
        """Let nothing more come."""
        self.reached = True

    def wait(self, seconds: float) -> None:
        """Wait that long or until there is a reason to stop."""
        interrupts.alive()
        seconds = min(seconds, _LONGEST_WAIT)
        if self._deadline is not None:
            left = self._deadline - time.monotonic()
            self.reached |= left <= 0
            seconds = max(0.0, min(seconds, left))
        if self._poll.poll(seconds * 1000):
            self.reached = True


@contextmanager
def started(arguments: tuple[str, ...], verbose: int) -> Iterator[Command | None]:
    """Have the command, if any, wait for its release; end it when something goes wrong."""
    command = Command(arguments) if arguments else None
    try:
        with interrupts.cleaning(command.end) if command else nullcontext():
            yield command
    except BaseException as error:
        if verbose > 1 and isinstance(error, KernelRefused):
            print("\n".join(error.log), file=sys.stderr)
        if command:
            command.end()
        raise


def run(
    source: Source,
    stages: Sequence[Stage],
    sinks: Sequence[Sink],
    output: Output,
    stop: Stop,
    command: Command | None = None,
) -> None:
    """Let events flow until there is a reason to stop; a reader that went away is one, no error.

    Raises OutputError.
    """
    if command:
        sinks = [*sinks, _Release(command)]
    limits = (First(stop.count, stop.enough),) if stop.count else ()
    try:
        pipeline.run(source, (*stages, *limits), sinks, stop)
    except BrokenPipeError:
        silence(output)
    except OSError as error:
        silence(output)
        raise OutputError(f"cannot write the output: {error.strerror}") from error


class _Release(Sink):
    """Lets the command go when all outputs before it are open: what it does cannot be undone."""

    def __init__(self, command: Command) -> None:
        self._command = command

    def open(self, facts: Facts) -> None:
        """Let it go, unless a signal has come by now."""
        if not interrupts.asked():
            self._command.release()

    def write(self, batch: Batch) -> None:
        """Nothing."""
