"""The presets, for live or recorded events: which events each shows, and how."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from tcprism.cli.output import make_sink, wants_color
from tcprism.errors import ExtraMissing
from tcprism.events import Batch
from tcprism.events._wire import EventKind
from tcprism.events.kinds import NUMBERS
from tcprism.events.names import STATES
from tcprism.events.requests import READS
from tcprism.sinks import Sink
from tcprism.stages import Stage

_REASONS = ("send", "receive")  # of what is sent again
ESTABLISHED = STATES.index("ESTABLISHED")

MakeSinks = Callable[[dict[str, Any], Sequence[str], BinaryIO], list[Sink]]


@dataclass(frozen=True, slots=True)
class Preset:
    """A form of output: `stages` makes the stages that choose the events, `make` the sinks.

    `kinds` are what it needs, None: whatever the user asks for.
    """

    kinds: tuple[str, ...] | None
    stages: Callable[[], Sequence[Stage]]
    make: MakeSinks


def ended(batch: Batch) -> Batch:
    """Choose the ends of connections: closes, and connects that failed."""
    parts = [
        part.take(
            (part.rows["kind"] == EventKind.CLOSE)
            | (part.rows["kind"] == EventKind.CONNECT) & (part.rows["new_state"] != ESTABLISHED)
        )
        for part in batch.parts
    ]
    return Batch(parts, batch.clock_offset_ns)


def without_reasons(batch: Batch) -> Batch:
    """Choose all but what tells whose bytes are sent again, and which ACKs caused that."""
    reasons = [NUMBERS[kind] for kind in _REASONS]
    parts = [part.take(~np.isin(part.rows["kind"], reasons)) for part in batch.parts]
    return Batch(parts, batch.clock_offset_ns)


def _events(given: dict[str, Any], kinds: Sequence[str], output: BinaryIO) -> list[Sink]:
    return [make_sink(given, kinds, output)]


def _connections(given: dict[str, Any], kinds: Sequence[str], output: BinaryIO) -> list[Sink]:
    if given["form"] != "text":
        return _events(given, kinds, output)
    from tcprism.sinks.connections import Connections

    return [Connections(output, color=wants_color(given["color"], output))]


def _retransmits(given: dict[str, Any], kinds: Sequence[str], output: BinaryIO) -> list[Sink]:
    from tcprism.sinks.retransmit_summary import RetransmitSummary

    shown = [kind for kind in kinds if kind not in _REASONS]
    return [make_sink(given, shown, output), RetransmitSummary(sys.stderr)]


def _all() -> Sequence[Stage]:
    return ()


def _request_stages() -> Sequence[Stage]:
    from tcprism.stages.requests import Requests

    return (Requests(alone=True),)


def _requests(given: dict[str, Any], _kinds: Sequence[str], output: BinaryIO) -> list[Sink]:
    if given["form"] != "text":
        return _events(given, ("request",), output)
    return request_sinks(output, wants_color(given["color"], output))


def request_sinks(output: BinaryIO, color: bool, by: str = "route") -> list[Sink]:
    """Return what shows requests as lines, and sums them up on stderr where that is possible."""
    from tcprism.sinks.request_summary import RequestSummary
    from tcprism.sinks.requests import RequestLines

    sinks: list[Sink] = [RequestLines(output, color=color)]
    try:
        sinks.append(RequestSummary(print_on_stderr, by))
    except ExtraMissing as error:
        print_on_stderr(f"no summary at the end: {error}")
    return sinks


def print_on_stderr(line: str) -> None:
    """Print a line of what is no event."""
    print(line, file=sys.stderr)


TRACE = Preset(None, _all, _events)
CONNECTIONS = Preset(("connect", "close"), lambda: (ended,), _connections)
RETRANSMITS = Preset(
    ("send", "retransmit", "undo", "drop"), lambda: (without_reasons,), _retransmits
)
REQUESTS = Preset(
    READS,
    _request_stages,
    _requests,
)
PRESETS = {
    "trace": TRACE,
    "connections": CONNECTIONS,
    "retransmits": RETRANSMITS,
    "requests": REQUESTS,
}
