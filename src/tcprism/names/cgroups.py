"""Containers, pods and units, read off the paths of cgroups; names from the container engines."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from math import inf
from pathlib import Path

from tcprism.errors import UnknownTarget
from tcprism.events.context import Owner
from tcprism.events.escape import escape
from tcprism.names.look_up import LookUp, Machine
from tcprism.names.workloads import Told

# Docker, Podman, containerd and CRI-O all name a container's cgroup after its 64 digits.
_CONTAINER = re.compile(r"(?:^|[/:-])([0-9a-f]{64})(?=[./]|$)")
_POD = re.compile(r"pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12})")
_UNIT = re.compile(r"/([^/]+\.(?:service|scope|socket|mount))(?=/|$)")

_REFRESH = 5.0  # seconds before what is not known is asked for again
_REMEMBERED = 1 << 14  # cgroups; those of a long run are more than there are at once


def describe(path: str, names: Callable[[str], Told | None]) -> Owner:
    """Return what the path of a cgroup says, and what `names` tells of a container's id."""
    ids = _CONTAINER.findall(path)
    found = _POD.search(path)
    units = [] if ids else _UNIT.findall(path)
    # One may run in another: the innermost is the container, any may be a pod's.
    told = [names(each) or Told() for each in ids]
    pod = next((each for each in reversed(told) if each.namespace), Told())
    return Owner(
        cgroup=escape(path.encode(errors="surrogateescape")),
        container_id=ids[-1] if ids else None,
        pod_uid=found[1].replace("_", "-") if found else None,
        unit=escape(units[-1].encode(errors="surrogateescape")) if units else None,
        container=told[-1].name if told else None,
        namespace=pod.namespace,
        workload=pod.workload,
    )


class Names:
    """What engines tell of containers, asked for beside the stream.

    What is not known yet is None, and known a moment later if an engine knows it.
    """

    def __init__(self, look_up: LookUp | None = None) -> None:
        self._look_up: LookUp = look_up or Machine()
        self._known: dict[str, Told] = {}
        self._wanted: set[str] = set()
        self._asked_at: dict[str, float] = {}
        self._thread: threading.Thread | None = None

    def __call__(self, container_id: str) -> Told | None:
        """Return what is told of a container, or None."""
        told = self._known.get(container_id)
        if told is None:
            self._want(container_id)
        return told

    def _want(self, container_id: str) -> None:
        now = time.monotonic()
        if now - self._asked_at.get(container_id, -inf) > _REFRESH:
            if len(self._asked_at) >= _REMEMBERED:
                self._asked_at.clear()
            self._asked_at[container_id] = now
            self._wanted.add(container_id)
        if self._wanted and (self._thread is None or not self._thread.is_alive()):
            wanted, self._wanted = self._wanted, set()
            self._thread = threading.Thread(target=self.refresh, args=(wanted,), daemon=True)
            self._thread.start()

    def refresh(self, wanted: Iterable[str] = ()) -> dict[str, Told]:
        """Ask now for containers that are `wanted`, if any."""
        told = self._look_up(set(wanted))
        # Those of containers that are gone are kept, for events of theirs may still come.
        self._known = {**self._known, **told} if len(self._known) < _REMEMBERED else told
        return self._known

    def ask(self, look_up: LookUp) -> None:
        """From now on, ask somebody else."""
        self._look_up = look_up


class Owners:
    """From a cgroup v2 id to its owner. `path_of` finds the path of an id, None when it is gone."""

    def __init__(
        self,
        path_of: Callable[[int], str | None],
        names: Callable[[str], Told | None],
    ) -> None:
        self._path_of = path_of
        self._names = names
        self._paths: dict[int, str | None] = {}

    def __call__(self, cgroup_id: int) -> Owner:
        """Return where the processes of a cgroup run."""
        if cgroup_id not in self._paths:
            if len(self._paths) >= _REMEMBERED:
                self._paths.clear()
            try:
                self._paths[cgroup_id] = self._path_of(cgroup_id) if cgroup_id else None
            except BlockingIOError:  # it will be known another time
                return Owner()
        path = self._paths[cgroup_id]
        return Owner() if path is None else describe(path, self._names)


def containers(roots: Iterable[Path]) -> Iterator[tuple[Path, str]]:
    """Yield the cgroup and the id of each container that there is."""
    for root in roots:
        for path in root.rglob("*"):
            if (found := _CONTAINER.findall(path.name)) and path.is_dir():
                yield path, found[-1]


def find_cgroups(text: str, roots: Iterable[Path], names: Names) -> tuple[Path, ...]:
    """Return the cgroups of a container given by id, the beginning of one, or name.

    Kubernetes has one name for containers of several pods: those of all are returned. Raises
    UnknownTarget.
    """
    there = list(containers(roots))
    known = names.refresh(identity for _, identity in there)
    found = [path for path, identity in there if known.get(identity, Told()).name == text]
    if not found and len(text) >= 4:
        found = [path for path, identity in there if identity.startswith(text)]
    if not found:
        raise UnknownTarget(
            f"--container: no running container is called {text!r}; give its name (where Docker,"
            " Podman, containerd or CRI-O tells it), its id, or the first 4 or more digits of that"
        )
    return tuple(found)
