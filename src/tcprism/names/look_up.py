"""What this machine's container engines tell of containers: read off bundles, or asked for."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from tcprism.names import bundles
from tcprism.names.workloads import Told

# From ids of containers to what is told of them, possibly of others, too.
LookUp = Callable[[Collection[str]], dict[str, Told]]

ENGINES = (Path("/run/docker.sock"), Path("/run/podman/podman.sock"))
_AGAIN = 2.5  # seconds before an engine is asked again; it tells of all its containers each time


class Machine:
    """Looks up containers by id: in their bundles, then by asking the engines, not too often."""

    def __init__(
        self,
        engines: Iterable[Path] = ENGINES,
        places: Iterable[bundles.Place] = bundles.PLACES,
    ) -> None:
        self._engines = tuple(engines)
        self._places = tuple(places)
        self._told: dict[str, Told] = {}
        self._asked_at = -_AGAIN

    def __call__(self, wanted: Collection[str]) -> dict[str, Told]:
        """Return what is told of containers; without any, what the engines tell of by themselves.

        What makes no sense is left out.
        """
        found = {each: told for each in wanted if (told := bundles.tell(each, self._places))}
        if not wanted or len(found) < len(wanted):
            found |= self._ask_engines()
        return found

    def _ask_engines(self) -> dict[str, Told]:
        from tcprism.names.container_engine import ask  # HTTP: not at the start of every trace

        if time.monotonic() - self._asked_at > _AGAIN:
            self._told = {}
            for engine in self._engines:
                self._told |= ask(engine)
            self._asked_at = time.monotonic()
        return self._told
