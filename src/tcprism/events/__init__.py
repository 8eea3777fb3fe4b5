"""Events: what a record means, and the batch that carries records through the program."""

from tcprism.events.batch import Batch
from tcprism.events.part import Part

__all__ = ["Batch", "Part"]
