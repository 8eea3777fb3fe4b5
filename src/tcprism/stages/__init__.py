"""Stages: from batch to batch. Each is a callable that keeps what it needs to know between batches.

A stage adds derived columns (`Part.derive`); it makes and drops no events. It runs on a recording
as on a live trace.
"""

from collections.abc import Callable

from tcprism.events import Batch

Stage = Callable[[Batch], Batch]
