"""`tcprism requests --clickhouse URL`: the requests of all hosts of a fleet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, BinaryIO

from tcprism.cli import options
from tcprism.cli.clickhouse import reached
from tcprism.cli.output import opened, wants_color
from tcprism.cli.presets import print_on_stderr
from tcprism.cli.session import Limits, Stop, run
from tcprism.errors import UsageError
from tcprism.filter_texts import parse_recorded
from tcprism.recording.selection import Selection
from tcprism.sinks import Sink
from tcprism.sinks.formats import sink_for
from tcprism.sinks.request_summary import RequestSummary
from tcprism.sinks.requests import RequestLines
from tcprism.stages import Stage

_FORMATS = ("json", "csv")  # that say which host it was


def show(given: dict[str, Any], stages: Sequence[Stage]) -> None:
    """Show the requests of the last minute, and those that come. Raises UsageError, ServerError."""
    from tcprism.fleet.server import Server
    from tcprism.fleet.tail import Requests

    if given["form"] not in ("text", *_FORMATS) or given["command"]:
        raise UsageError(
            "--clickhouse shows requests of hosts that trace already, as text, json or csv"
        )
    server = Server(*reached(given["clickhouse"], given["credentials"]))
    chosen = Selection(parse_recorded(options.filter_texts(given), given.pop("follow")))
    source = Requests(server)
    with (
        opened(options.parse_output(given["output"])) as output,
        Stop(Limits(given["count"], given["duration"]), output, None) as stop,
    ):
        sinks = _sinks(given, output)
        run(source, (chosen, *stages), sinks, output, stop)


def _sinks(given: dict[str, Any], output: BinaryIO) -> list[Sink]:
    if given["summary"]:
        return [RequestSummary(lambda line: output.write(f"{line}\n".encode()), given["by"])]
    if given["form"] != "text":
        return [sink_for(given["form"])(output, hosts=True)]
    color = wants_color(given["color"], output)
    lines = RequestLines(output, color=color, hosts=True)
    return [lines, RequestSummary(print_on_stderr, given["by"])]
