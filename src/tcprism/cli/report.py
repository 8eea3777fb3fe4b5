"""`tcprism report`."""

from __future__ import annotations

from typing import Any

import click

from tcprism import pipeline
from tcprism.cli.output import opened
from tcprism.cli.recordings import parse_output, print_trouble
from tcprism.cli.session import Limits, Stop
from tcprism.cli.view import file_arguments, name_of, open_file
from tcprism.errors import OutputError, UsageError
from tcprism.sources.playback import Playback
from tcprism.stages.requests import Requests
from tcprism.web.report import report
from tcprism.web.store import Store
from tcprism.web.views import Views

EPILOG = """\b
Examples:
  tcprism report run.tcpr -o report.html         one file: open it, or send it to somebody
  tcprism report run.tcpr -o - --port 443 > report.html

The file has what was sent and received, passwords included. docs/web.md says what is left out."""


@click.command(epilog=EPILOG)
@file_arguments
@click.option("--output", "-o", required=True, metavar="FILE", help="Write the page to FILE.")
def command(**given: Any) -> None:
    """Write a recording as one page that needs no server."""
    recording = open_file(given)
    store = Store(recording.memory)
    with opened(parse_output(given)) as output, Stop(Limits(), None, None) as stop:
        pipeline.run(Playback(recording), (Requests(),), [store], stop)
        store.end(tuple(recording.trouble))
        if stop.reached:
            raise UsageError("interrupted: nothing was written")
        try:
            output.write(report(Views(store, name_of(given["file"]), live=False)))
            output.flush()
        except OSError as error:
            raise OutputError(f"cannot write the output: {error.strerror}") from error
    print_trouble(recording)
