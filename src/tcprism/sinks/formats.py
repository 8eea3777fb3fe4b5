"""The formats: name -> sink, those that come with tcprism and those that others add.

Another package adds one by an entry point in the group `tcprism.sinks`: its name is the format's,
its object takes a binary file and returns a Sink.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from tcprism.errors import UsageError
from tcprism.events.optional import plugin, plugins
from tcprism.sinks import Sink

GROUP = "tcprism.sinks"

# Imported when chosen: some need libraries of their own.
OURS = {
    "json": ("tcprism.sinks.json_lines", "JsonLines"),
    "csv": ("tcprism.sinks.csv_lines", "Csv"),
    "arrow": ("tcprism.sinks.arrow", "ArrowStream"),
    "parquet": ("tcprism.sinks.parquet", "Parquet"),
    "pcapng": ("tcprism.sinks.pcapng", "Pcapng"),
}
BINARY = ("arrow", "parquet", "pcapng")


def sink_for(name: str) -> Callable[..., Sink]:
    """Return what makes a sink of a format. Raises UsageError when there is none of the name."""
    made: Callable[..., Sink] | None
    if name in OURS:
        module, attribute = OURS[name]
        made = getattr(import_module(module), attribute)
    else:
        made = plugin(GROUP, name)
    if made is None:
        known = ", ".join(["text", *OURS, *plugins(GROUP)])
        raise UsageError(f"{name!r} is not a format; choose from {known}")
    return made
