"""Code shared by `tcprism connections` and `tcprism retransmits`: both show events of `trace`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from tcprism.cli import options
from tcprism.cli.presets import Preset
from tcprism.cli.session import started
from tcprism.cli.trace import trace
from tcprism.filters import Criteria
from tcprism.sources.request import Request
from tcprism.stages import Stage

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = (
    options.format_option,
    options.output_option,
    options.count_option,
    options.duration_option,
    options.color_option,
    options.verbose_option,
    options.quiet_option,
    options.command_argument,
)

# What only trace can be told.
_PLAIN = {"count_only": False, "packets": None, "payload_style": "text"}


def view_options(command: Command) -> Command:
    """Add the options that both views have, the filters apart."""
    return options.with_options(_OPTIONS, command)


def show(
    given: dict[str, Any],
    preset: Preset,
    more_kinds: tuple[str, ...] = (),
    stage: Callable[[Criteria], Stage] | None = None,
    tcp_options: bool = False,
) -> NoReturn:
    """Trace what a preset needs, and more kinds, as the options say; exit when it ends.

    `stage` makes one more stage, from the filter. With `tcp_options`, segments have those.
    """
    options.parse_duration(given["duration"])
    with started(given["command"], given["verbose"]) as child:
        chosen = options.to_filter(given, child.pid if child else None)
        kinds = (*(preset.kinds or ()), *more_kinds)
        stages = (stage(chosen),) if stage else ()
        request = Request(kinds=kinds, filter=chosen, options=tcp_options)
        status = trace(request, given | _PLAIN, child, preset, stages)
    sys.exit(status)
