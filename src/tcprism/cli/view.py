"""`tcprism view`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import click

from tcprism import pipeline
from tcprism.cli import options
from tcprism.cli.recordings import print_trouble
from tcprism.cli.replay import SAMPLE
from tcprism.cli.session import Limits, Stop
from tcprism.errors import UsageError
from tcprism.events.escape import escape_text
from tcprism.filter_texts import parse_recorded
from tcprism.recording.reader import Recording
from tcprism.recording.selection import Selection
from tcprism.sources.playback import Playback
from tcprism.stages import Stage
from tcprism.stages.requests import Requests
from tcprism.web.server import Server
from tcprism.web.store import Store
from tcprism.web.views import Views

Command = TypeVar("Command", bound=Callable[..., Any])

LISTEN = "127.0.0.1:0"
_LONG = 10.0  # seconds

EPILOG = """\b
Examples:
  tcprism view run.tcpr                  prints an address: open it in a browser
  tcprism view --sample                  the recording that ships with tcprism
  tcprism view run.tcpr --port 443       only what the filters choose
  tcprism view run.tcpr --listen 127.0.0.1:8000

Runs without privileges on any system. Only who has the address with its token can look, and by
default only on this machine. It runs until Ctrl-C. See docs/web.md."""


listen_option = click.option(
    "--listen",
    default=LISTEN,
    show_default=True,
    metavar="ADDRESS:PORT",
    help="Where the page is; port 0: any that is free.",
)

_FILE = (
    click.argument("file", required=False, metavar="FILE"),
    click.option("--sample", is_flag=True, help="Take the recording that ships with tcprism."),
    options.filter_options,
    options.memory_option,
)


def file_arguments(command: Command) -> Command:
    """Add what says which recording is shown, and what of it."""
    return options.with_options(_FILE, command)


@click.command(epilog=EPILOG)
@file_arguments
@listen_option
def command(**given: Any) -> None:
    """Show a recording in a browser."""
    address = parse_listen(given["listen"])
    recording = open_file(given)
    store = Store(recording.memory)
    _serve(recording, store, Server(Views(store, name_of(given["file"]), live=False), *address))


def open_file(given: dict[str, Any]) -> Recording:
    """Open FILE, or the sample, with the filters. Raises UsageError and RecordingError."""
    if given["sample"] == bool(given["file"]):
        raise UsageError("name a recording, or give --sample for the one that comes with tcprism")
    given["file"] = given["file"] or str(files("tcprism").joinpath(SAMPLE))
    memory = options.parse_memory(given["max_memory"])
    chosen = parse_recorded(options.filter_texts(given), given["follow"])
    return Recording(given["file"], Selection(chosen), memory=memory)


def name_of(path: str) -> str:
    """Return what a page calls a recording."""
    return "standard input" if path == "-" else escape_text(Path(path).name)


def say_where(server: Server) -> None:
    """Print the address of a page."""
    print(server.url, flush=True)
    print("open this address in a browser; Ctrl-C ends", file=sys.stderr, flush=True)


def parse_listen(text: str) -> tuple[str, int]:
    """Parse --listen. Raises UsageError."""
    return options.parse_address(text, "--listen", "127.0.0.1:8000")


def _serve(recording: Recording, store: Store, server: Server) -> None:
    """Read the recording while the page is served already; then serve on until a signal."""
    with ExitStack() as stack:
        stop = stack.enter_context(Stop(Limits(), None, None))
        server.start()
        stack.callback(server.close)
        say_where(server)
        stages: Sequence[Stage] = (Requests(),)
        pipeline.run(Playback(recording), stages, [store], stop)
        store.end(tuple(recording.trouble))
        while not stop.reached:
            stop.wait(_LONG)
    print_trouble(recording)
