"""Events: what a record means, and the batch that carries records through the program."""

from typing import TYPE_CHECKING, Any

from tcprism.events import effort, requests  # noqa: F401 - they register their families
from tcprism.events.batch import Batch
from tcprism.events.columns import COLUMNS
from tcprism.events.kinds import FAMILIES, KINDS
from tcprism.events.part import Part

if TYPE_CHECKING:
    from tcprism.events.event import Event

__all__ = ["COLUMNS", "FAMILIES", "KINDS", "Batch", "Event", "Part"]


def __getattr__(name: str) -> Any:
    """Import Event when it is first used: most commands make none."""
    if name != "Event":
        raise AttributeError(f"module 'tcprism.events' has no attribute {name!r}")
    from tcprism.events.event import Event

    return Event
