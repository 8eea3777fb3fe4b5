"""What the commands that read a recording share."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from tcprism import interrupts
from tcprism.cli import options
from tcprism.cli.output import Output, print_ledger
from tcprism.cli.session import Stop, run
from tcprism.errors import RecordingError, UsageError
from tcprism.events.kinds import NUMBERS
from tcprism.filter_texts import parse_recorded
from tcprism.recording.notes import Gap
from tcprism.recording.reader import SUFFIX, Recording
from tcprism.recording.selection import Selection
from tcprism.sinks import Sink
from tcprism.sources.playback import Playback
from tcprism.stages import Stage, accounts


def open_recording(
    given: dict[str, Any], default_kinds: Sequence[str] | None = None
) -> tuple[Recording, Selection]:
    """Open FILE with the options that choose events; without --kinds, those kinds or all.

    The stage chooses kinds and cuts payloads: stages of the user's own come before it, as they need
    other kinds than those that are to be shown. Snapshots are not read: no hook made them.
    """
    chosen = parse_recorded(options.filter_texts(given), given.pop("follow"))
    kinds, payload = given.pop("kinds"), given.pop("payload")
    length = None if payload is None else options.parse_payload(payload)
    memory = options.parse_memory(given.pop("max_memory"))
    recording = Recording(given["file"], lambda batch: select(batch), memory=memory)
    # Only now: to open a recording may make kinds of other packages known.
    recorded = tuple(kind for kind in NUMBERS if kind != "snapshot")
    select = Selection(chosen, recorded)
    shown = default_kinds or recorded if kinds is None else options.parse_kinds(kinds, recorded)
    return recording, Selection(kinds=shown, payload=length)


def shown_kinds(recording: Recording, wanted: Selection) -> tuple[str, ...]:
    """Return which of the kinds that were recorded a selection lets through."""
    return tuple(kind for kind in recording.facts.kinds if kind in (wanted.kinds or ()))


def play(
    recording: Recording,
    speed: float,
    stages: Sequence[Stage],
    sinks: Sequence[Sink],
    output: Output,
    stop: Stop,
) -> None:
    """Let what was recorded flow to its end. Raises Interrupted: what came before is written."""
    run(Playback(recording, speed), stages, sinks, output, stop)
    interrupts.step()


def parse_output(given: dict[str, Any]) -> Path | None:
    """Return the file to write to, None for standard output. Raises UsageError for FILE itself."""
    path, source = options.parse_output(given["output"]), Path(given["file"])
    read = source.glob(f"*{SUFFIX}") if os.path.isdir(source) else [source]
    if path and os.path.isfile(path) and any(_is_same(path, file) for file in read):
        raise UsageError(
            f"--output: {path} is the recording that is read, and would be lost: name another file"
        )
    return path


def _is_same(path: Path, file: Path) -> bool:
    return os.path.exists(file) and os.path.samefile(path, file)


def print_account(recording: Recording, given: dict[str, Any], stages: Sequence[Stage]) -> None:
    """Print on stderr what the recording says of itself: gaps, its ledger, what is missing.

    The ledger has the account of the stages behind it, too. Raises RecordingError when something
    is missing because it is damaged.
    """
    for gap in () if given["quiet"] else recording.gaps:
        print(_gap_text(gap, recording), file=sys.stderr)
    if recording.ledger.entries:
        print_ledger(recording.ledger.with_account(accounts(stages)), given)
    print_trouble(recording)


class Readable(Protocol):
    """What has been read, and may not be whole."""

    @property
    def trouble(self) -> Sequence[str]:
        """What is missing, a sentence a file."""

    @property
    def damaged(self) -> bool:
        """Whether something could not be read that is there."""


def print_trouble(read: Readable) -> None:
    """Say on stderr what is missing. Raises RecordingError when that is because of damage."""
    *before, last = read.trouble or [""]
    for sentence in before if read.damaged else read.trouble:
        print(f"tcprism: {sentence}", file=sys.stderr)
    if read.damaged:
        raise RecordingError(last)


def _gap_text(gap: Gap, recording: Recording) -> str:
    since, until = (
        datetime.fromtimestamp((moment + recording.clock_offset_ns) / 1e9).strftime("%H:%M:%S.%f")
        for moment in (gap.since_ns, gap.until_ns)
    )
    entry = next((each for each in recording.ledger.entries if each.kind == gap.kind), None)
    what = "lost"
    if entry and entry.sampled_out:
        what = "lost or not in the sample" if entry.lost else "not in the sample"
    return f"gap: {gap.lost} {gap.kind} {what} between {since} and {until}"
