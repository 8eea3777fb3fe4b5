"""Events: what a record means, and the batch that carries records through the program."""

from tcprism.events.batch import Batch
from tcprism.events.columns import COLUMNS
from tcprism.events.event import Event
from tcprism.events.kinds import FAMILIES, KINDS
from tcprism.events.part import Part

__all__ = ["COLUMNS", "FAMILIES", "KINDS", "Batch", "Event", "Part"]
