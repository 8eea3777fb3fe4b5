"""Stages: from batch to batch. Each is a callable that keeps what it needs to know between batches.

Ours add derived columns (`Part.derive`) and neither make nor drop events. A stage of a user's own
may drop or change them. It is a callable, given to `tcprism.Monitor`; another package offers one to
`--stage NAME` by an entry point in the group `tcprism.stages`, whose object takes no argument and
returns the stage.
"""

from collections.abc import Callable, Iterable
from functools import reduce

from tcprism.errors import UsageError
from tcprism.events import Batch
from tcprism.events.optional import plugin, plugins

GROUP = "tcprism.stages"

Stage = Callable[[Batch], Batch]


def through(stages: Iterable[Stage], batch: Batch) -> Batch:
    """Return what becomes of a batch in some stages, one after the other."""
    return reduce(lambda done, stage: stage(done), stages, batch)


def stage_for(name: str) -> Stage:
    """Return a stage that an installed package offers. Raises UsageError when there is none."""
    make: Callable[[], Stage] | None = plugin(GROUP, name)
    if make is None:
        known = ", ".join(plugins(GROUP)) or "none is installed"
        raise UsageError(f"--stage: {name!r} is not a stage; choose from: {known}")
    return make()
