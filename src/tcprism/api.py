"""The Python interface: Monitor, Filter, open and explain, as `import tcprism` offers them."""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from tcprism import filter_texts
from tcprism.errors import UsageError
from tcprism.events import KINDS, Batch, Event
from tcprism.events.ledger import Ledger
from tcprism.events.requests import NEEDS, PAYLOAD, READS
from tcprism.filters import Criteria
from tcprism.pipeline import Flow, account, flow
from tcprism.recording.encryption import use_identity
from tcprism.recording.framing import DEFAULT_MEMORY
from tcprism.recording.reader import Recording
from tcprism.recording.selection import Selection
from tcprism.sources.playback import Playback
from tcprism.stages import Stage

if TYPE_CHECKING:
    from tcprism.diagnosis.explanation import Explanation

Value = str | int | os.PathLike[str]
Values = Value | Iterable[Value]


@dataclass(frozen=True)
class Filter:
    """What to trace: the filter options of the command line, under the same names.

    Each takes one value or several, written as on the command line or as a number: `port=443`,
    `host=["10.0.0.0/8", "fd00::/8"]`, `comm="curl"`. An event must match every field, and any one
    of the values of a field. Raises UsageError for a value that makes no sense.
    """

    pid: Values = ()
    comm: Values = ()
    host: Values = ()
    remote_host: Values = ()
    port: Values = ()
    local_port: Values = ()
    remote_port: Values = ()
    cgroup: Values = ()
    container: Values = ()
    netns: Values = ()
    family: Values = ()
    follow: bool = False

    def __post_init__(self) -> None:
        filter_texts.check(self._texts())  # who is there now, or was, is asked later

    def live(self) -> Criteria:
        """Return the criteria for live tracing. Raises UnknownTarget if a target does not exist."""
        return filter_texts.parse(self._texts(), follow=self.follow)

    def recorded(self) -> Criteria:
        """Return the criteria for recorded events. Raises UsageError if they cannot be checked."""
        return filter_texts.parse_recorded(self._texts(), self.follow)

    def _texts(self) -> dict[str, tuple[str, ...]]:
        return {
            field.name: _texts(getattr(self, field.name))
            for field in fields(self)
            if field.name != "follow"
        }


def _texts(values: Values) -> tuple[str, ...]:
    if isinstance(values, str | int | os.PathLike):
        return (_text(values),)
    return tuple(map(_text, values))


def _text(value: Value) -> str:
    text = str(value) if isinstance(value, int) else os.fspath(value)
    try:
        possible = b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        possible = False
    if not possible:  # the command line cannot have it
        raise UsageError(f"{text!r} has a character that no name and no path can have")
    return text


def open(  # what builtins.open is for files
    path: str | os.PathLike[str],
    *,
    kinds: Iterable[str] | None = None,
    filters: Filter | None = None,
    max_memory: int = DEFAULT_MEMORY,
    identity: str | os.PathLike[str] | None = None,
) -> Recording:
    """Open a recording: a file, a directory of files, or "-" for standard input.

    `kinds` and `filters` choose events; None takes all. Reading takes at most `max_memory` bytes.
    `identity` is a file with the key to an encrypted recording. Raises RecordingError and
    UsageError.
    """
    if identity is not None:
        use_identity(_text(identity))
    chosen = None if kinds is None else _checked(kinds)
    select = Selection((filters or Filter()).recorded(), chosen)
    return Recording(_text(path), select, memory=max_memory)


def requests(
    path: str | os.PathLike[str] | None = None,
    *,
    filters: Filter | None = None,
    protocols: Iterable[str] | None = None,
    show_values: bool = False,
    payload: int = PAYLOAD,
    tls: bool = False,
) -> Monitor | Replayed:
    """Return requests as events of the kind `request` (docs/requests.md): iterate over them.

    Those in a recording, or without `path` those on this machine, inside a `with` block as with
    Monitor. `protocols` are names of those to look for, None: all. With `show_values`, resources
    keep the values in them, which may be secrets. Live, `payload` is the number of bytes to capture
    per message, and with `tls` the plaintext of TLS is read, too. Raises UsageError, RecordingError
    and the errors of Monitor.
    """
    from tcprism.protocols.known import protocols as known
    from tcprism.stages.requests import Requests

    stage = Requests(known(protocols), show_values=show_values, alone=True)
    if path is None:
        kinds = READS if tls else NEEDS
        monitor = Monitor(kinds, filters, payload, stages=(stage,))
        monitor._options["skip_bodies"] = True
        return monitor
    recording = open(path, filters=filters)
    if _text(path) == "-":  # what is read is gone
        return Replayed(recording, (stage,))

    def again() -> Iterable[Batch]:
        found = requests(path, filters=filters, protocols=protocols, show_values=show_values)
        return found.batches()

    return Replayed(recording, (stage,), again)


class Replayed:
    """Events of a recording behind stages: iterate over them, or over `batches()`, once."""

    def __init__(
        self,
        recording: Recording,
        stages: Iterable[Stage],
        again: Callable[[], Iterable[Batch]] = tuple,
    ) -> None:
        self.recording = recording
        self._stages = tuple(stages)
        self._again = again  # the same batches another time

    def batches(self) -> Iterator[Batch]:
        """Yield batches; none is empty. Raises RecordingError."""
        with closing(flow(Playback(self.recording), self._stages, _Stop())) as batches:
            yield from (batch for batch, _ in batches if len(batch))

    def __iter__(self) -> Iterator[Event]:
        for batch in self.batches():
            yield from batch

    def _repr_html_(self) -> str:
        """Return what a notebook shows, and leave the batches to be read."""
        from tcprism.events.preview import preview  # with the large class of events

        return preview(self._again(), "Requests")


def explain(
    target: Value | None = None,
    duration: float = 10,
    filters: Filter | None = None,
    *,
    tls: bool = False,
    max_memory: int = DEFAULT_MEMORY,
) -> Explanation:
    """Explain what limits connections, with the numbers that prove it (docs/explain.md).

    `target` is a process id, a thread name, "HOST[:PORT]" or the path of a recording; None takes
    every connection on this machine. Live, it watches for `duration` seconds and needs root; with
    `tls` it reads requests inside TLS, too. A recording is read at once, without root, and takes at
    most `max_memory` bytes; the result's `trouble` says what of it is missing. Raises
    UnknownTarget, UsageError and RecordingError, and the errors of Monitor.
    """
    from tcprism.diagnosis.explanation import explain_recording
    from tcprism.diagnosis.targets import both, find_target

    chosen = filters or Filter()
    found = Criteria() if target is None else find_target(_text(target))
    if isinstance(found, Path):
        return explain_recording(open(found, filters=chosen, max_memory=max_memory))
    from tcprism.diagnosis.inquiry import Inquiry  # not before: it needs a kernel

    if not 0 < duration < math.inf:
        raise UsageError(f"duration: {duration} is not a number of seconds above 0")
    with Inquiry(both(found, chosen.live()), tls) as inquiry:
        inquiry.watch(_Stop(duration))
        return inquiry.explanation()


def _checked(kinds: Iterable[str]) -> tuple[str, ...]:
    wanted = set(kinds)
    if unknown := sorted(wanted - set(KINDS)):
        raise UsageError(f"{unknown[0]!r} is not a kind; choose from {', '.join(KINDS)}")
    return tuple(kind for kind in KINDS if kind in wanted)


class Monitor:
    """Traces inside a `with` block; iterate over its events, or over its `batches()`.

    `async for` works like `for`. `payload` is the number of bytes to capture per message, or per
    segment where messages are not among the kinds, up to 16384. `ring_size` is the memory per busy
    ring in bytes, from 64 KiB to 1 GiB. `stages` are callables from batch to batch, applied in
    order. Without `include_self`, the connections of this process are left out. Needs root. Raises
    PermissionMissing, LibraryMissing, KernelRefused or UnknownTarget when entered, and UsageError
    then or when constructed.
    """

    def __init__(
        self,
        kinds: Iterable[str] | None = None,
        filters: Filter | None = None,
        payload: int | None = None,
        *,
        ring_size: int | None = None,
        include_self: bool = False,
        redact: Iterable[str] | None = None,
        stages: Iterable[Stage] = (),
    ) -> None:
        self._options: dict[str, Any] = {
            "kinds": None if kinds is None else _checked(kinds),
            "payload": payload,
            "ring_size": ring_size,
            "include_self": include_self,
            "redact": None if redact is None else tuple(redact),
        }
        self._filter = filters or Filter()
        self._stages = tuple(stages)
        self._stop = _Stop()

    def __enter__(self) -> Self:
        # Not before: recordings are read where there is no libbpf.
        from tcprism.sources.request import DEFAULT_KINDS, Request, payload_of_segments
        from tcprism.sources.tracing import Tracing

        given = {name: value for name, value in self._options.items() if value is not None}
        of_segments = payload_of_segments(given.get("kinds", DEFAULT_KINDS), given.get("payload"))
        request = Request(filter=self._filter.live(), segment_payload=of_segments, **given)
        self._tracing = Tracing(request).__enter__()
        self._flow = flow(self._tracing, self._stages, self._stop)
        self._ledger: Ledger | None = None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        try:
            for _ in self._flow:
                pass  # not wanted any more, but read, so that the ledger balances
            self._ledger = self.ledger()
        finally:  # a stage of the user's own may raise
            self._tracing.__exit__(kind, error, trace)

    def stop(self) -> None:
        """End the iteration, from any thread or signal handler; recorded events still come."""
        self._stop.reached = True

    def ledger(self) -> Ledger:
        """Return the account of every event so far, or of all after the end."""
        return self._ledger or account(self._tracing, self._stages)

    def _repr_html_(self) -> str:
        """Return what a notebook shows: what was seen so far, and what was lost."""
        from tcprism.events.preview import of_ledger  # with the large class of events

        if not hasattr(self, "_tracing"):
            return "<p><b>Monitor</b>: traces inside a <code>with</code> block</p>"
        return of_ledger(self.ledger(), f"Monitor, {'ended' if self._ledger else 'running'}")

    def batches(self) -> Batches:
        """Return the following batches, for `for` or `async for`; none is empty."""
        return Batches(self._flow)

    def __iter__(self) -> Iterator[Event]:
        for batch in self.batches():
            yield from batch

    async def __aiter__(self) -> AsyncIterator[Event]:
        async for batch in self.batches():
            for event in batch:
                yield event


class _Stop:
    """Says when it is enough: when somebody sets `reached`, after `duration` seconds if any."""

    def __init__(self, duration: float = math.inf) -> None:
        self._end = time.monotonic() + duration
        self.reached = False

    def wait(self, seconds: float) -> None:
        time.sleep(max(0.0, min(seconds, self._end - time.monotonic())))
        self.reached |= time.monotonic() >= self._end


class Batches:
    """Batches of a running Monitor, for `for` and for `async for`."""

    def __init__(self, batches: Flow) -> None:
        self._flow = batches

    def __iter__(self) -> Iterator[Batch]:
        for batch, pause in self._flow:
            if len(batch):
                yield batch
            time.sleep(pause)

    async def __aiter__(self) -> AsyncIterator[Batch]:
        for batch, pause in self._flow:
            if len(batch):
                yield batch
            await asyncio.sleep(pause)
