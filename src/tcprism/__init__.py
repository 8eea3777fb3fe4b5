"""tcprism shows what every TCP connection on a Linux machine is doing, from inside the kernel.

import tcprism

with tcprism.Monitor(kinds={"send"}, filters=tcprism.Filter(port=443)) as monitor:
    for event in monitor:
        print(event)

for event in tcprism.open("run.tcpr"):
    print(event)

for request in tcprism.requests("run.tcpr"):
    print(request.method, request.resource, request.status, request.request_ns)

for connection in tcprism.explain("nginx"):
    print(connection.heading, connection.verdicts)
"""

from __future__ import annotations

from tcprism.version import __version__

TYPE_CHECKING = False  # typing itself takes longer to import than all else here
if TYPE_CHECKING:
    from typing import Any

    from tcprism.api import Filter, Monitor, explain, open, requests
    from tcprism.errors import Error
    from tcprism.events import Batch, Event
    from tcprism.recording.reader import Recording
    from tcprism.sinks import Sink

__all__ = [
    "Batch",
    "Error",
    "Event",
    "Filter",
    "Monitor",
    "Recording",
    "Sink",
    "__version__",
    "explain",
    "open",
    "requests",
]

# Imported when first used: `tcprism --help` need not wait for NumPy, and signals are soon noted.
_HOMES = {
    "Batch": "tcprism.events",
    "Error": "tcprism.errors",
    "Event": "tcprism.events",
    "Filter": "tcprism.api",
    "Monitor": "tcprism.api",
    "Recording": "tcprism.recording.reader",
    "Sink": "tcprism.sinks",
    "explain": "tcprism.api",
    "open": "tcprism.api",
    "requests": "tcprism.api",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tcprism' has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value
