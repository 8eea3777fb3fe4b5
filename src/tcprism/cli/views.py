"""What `tcprism connections` and `tcprism retransmits` share: both show events that `trace` has."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, BinaryIO, NoReturn, TypeVar

from tcprism.cli import options
from tcprism.cli.session import Choose, started
from tcprism.cli.trace import trace
from tcprism.pipeline import Request
from tcprism.sinks import Sink

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = (
    options.format_option,
    options.output_option,
    options.count_option,
    options.duration_option,
    options.color_option,
    options.verbose_option,
    options.command_argument,
)


def view_options(command: Command) -> Command:
    """Add the options that both views have, the filters apart."""
    return options.with_options(_OPTIONS, command)


def show(
    given: dict[str, Any],
    make: Callable[[BinaryIO], Sink],
    choose: Choose,
    **asked: Any,
) -> NoReturn:
    """Trace as the options say and exit; `asked` are fields of the Request, its filter apart.

    `make` makes the sink for the output, `choose` takes of each batch the events to write.
    """
    options.parse_duration(given["duration"])
    with started(given["command"], given["verbose"]) as child:
        chosen = options.to_filter(given, child.pid if child else None)
        status = trace(Request(filter=chosen, **asked), given, child, make, choose)
    sys.exit(status)
