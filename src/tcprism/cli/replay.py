"""`tcprism replay`."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import click

from tcprism.cli import options
from tcprism.cli.capture_options import capture_option, parse_capture_filter
from tcprism.cli.output import naming, opened
from tcprism.cli.presets import PRESETS, Preset
from tcprism.cli.recordings import (
    open_recording,
    parse_output,
    play,
    print_account,
    shown_kinds,
)
from tcprism.cli.session import Limits, Stop
from tcprism.errors import UsageError
from tcprism.recording.reader import Recording
from tcprism.stages import Stage
from tcprism.stages.limits import Until

EPILOG = """\b
Examples:
  tcprism replay run.tcpr                          what trace would have printed
  tcprism replay run.tcpr --kinds retransmit --remote-port 443
  tcprism replay run.tcpr --as connections         what connections would have printed
  tcprism replay run.tcpr --speed 1                at the original pace
  tcprism replay --sample                          the recording that ships with tcprism
  ssh host sudo tcprism record -o - | tcprism replay -

Runs without privileges on any system. FILE is a recording, a directory of recordings, or - for
standard input. --pid, --cgroup and --netns refer to the machine that was recorded."""

SAMPLE = "sample.tcpr"


@click.command(epilog=EPILOG)
@click.argument("file", required=False, metavar="FILE")
@click.option("--sample", is_flag=True, help="Replay the recording that ships with tcprism.")
@click.option(
    "--speed",
    default="max",
    show_default=True,
    metavar="1|N|max",
    help="Speed, as a multiple of the original pace.",
)
@click.option(
    "--as",
    "preset",
    type=click.Choice([*PRESETS]),
    default="trace",
    show_default=True,
    help="Show what this command would have shown.",
)
@options.selection_options
@capture_option
@options.view_options
@options.count_option
@click.option(
    "--duration", type=float, metavar="SECONDS", help="Stop after SECONDS of recorded time."
)
@click.option("-v", "--verbose", is_flag=True, help="Show the full ledger.")
@options.quiet_option
def command(**given: Any) -> None:
    """Show a recording as trace would have shown it."""
    speed = _parse_speed(given["speed"])
    options.parse_duration(given["duration"])
    if given.pop("sample") == bool(given["file"]):
        raise UsageError("name a recording, or give --sample for the one that comes with tcprism")
    given["file"] = given["file"] or str(files("tcprism").joinpath(SAMPLE))
    preset = PRESETS[given["preset"]]
    stages = (*options.parse_stages(given), *naming(given["form"]))
    captured = parse_capture_filter(given)
    recording, wanted = open_recording(given, preset.kinds)
    passed: tuple[Stage, ...] = (*stages, wanted, *preset.stages(), *captured)
    try:
        _show(preset, recording, shown_kinds(recording, wanted), speed, passed, given)
    finally:
        print_account(recording, given, passed)


def _parse_speed(text: str) -> float:
    """Return the speed; 0 for as fast as possible."""
    if text == "max":
        return 0.0
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0 < speed < float("inf"):
        raise UsageError(f"--speed: {text!r} is neither a number above 0 nor max")
    return speed


def _show(
    preset: Preset,
    recording: Recording,
    kinds: tuple[str, ...],
    speed: float,
    stages: tuple[Stage, ...],
    given: dict[str, Any],
) -> None:
    with (
        opened(parse_output(given)) as output,
        Stop(Limits(given["count"]), output, None) as stop,
    ):
        if given["duration"]:
            stages = (*stages, Until(given["duration"], stop.enough))
        sinks = preset.make(given, kinds, output)
        play(recording, speed, stages, sinks, output, stop)
