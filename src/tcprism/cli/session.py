"""From the start line to the ledger: read, write, and stop for whichever reason comes first."""

from __future__ import annotations

import select
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass

from tcprism import interrupts
from tcprism.cli.command import Command
from tcprism.cli.output import Output, silence
from tcprism.cli.presets import Choose, everything
from tcprism.errors import KernelRefused, OutputError
from tcprism.events import Batch
from tcprism.sinks import Sink
from tcprism.sources.tracing import Tracing, pause


@dataclass(frozen=True, slots=True)
class Limits:
    """When to stop by itself: after so many events, after so many seconds."""

    count: int | None = None
    duration: float | None = None


class Stop:
    """Tells when to stop: a signal, the time, the command's end, a reader that went away."""

    def __init__(self, limits: Limits, output: Output, command: Command | None) -> None:
        self.count = limits.count
        self._deadline = None if limits.duration is None else time.monotonic() + limits.duration
        self._poll = select.poll()
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

    def wait(self, seconds: float) -> None:
        """Wait that long or until there is a reason to stop."""
        interrupts.alive()
        if self._deadline is not None:
            left = self._deadline - time.monotonic()
            self.reached = left <= 0
            seconds = max(0.0, min(seconds, left))
        if self._poll.poll(seconds * 1000):
            self.reached = True


def batches(monitor: Tracing, stop: Stop, choose: Choose = everything) -> Iterator[Batch]:
    """Yield what `choose` takes of each batch until there is a reason to stop, then of the rest.

    There are empty batches among them.
    """
    left = stop.count
    while not stop.reached and left != 0:
        batch = choose(monitor.read())
        if left is not None:
            batch = batch.between(0, left)
            left -= len(batch)
        yield batch
        if left != 0:
            urgent = (
                len(batch) if monitor.request.ordered else 0
            )  # a count is printed once a second
            stop.wait(pause(urgent, monitor.fill_level()))
    monitor.stop()
    while left != 0 and len(batch := monitor.drain()):
        interrupts.alive()
        batch = choose(batch)
        yield batch if left is None else batch.between(0, left)
        left = left if left is None else left - min(left, len(batch))


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
    monitor: Tracing,
    sink: Sink,
    output: Output,
    stop: Stop,
    command: Command | None = None,
    choose: Choose = everything,
    last: Callable[[], Batch] | None = None,
) -> None:
    """Trace until there is a reason to stop; a reader that went away is one and no error."""
    if command and not interrupts.asked():
        command.release()
    try:
        for batch in batches(monitor, stop, choose):
            sink.write(batch)
            output.flush()
        if last:
            sink.write(last())
        sink.close()
        output.flush()
    except BrokenPipeError:
        silence(output)
    except OSError as error:
        silence(output)
        raise OutputError(f"cannot write the output: {error.strerror}") from error
    finally:
        monitor.stop()
        while len(monitor.drain()):
            pass  # not wanted any more, but read, so that the ledger balances
