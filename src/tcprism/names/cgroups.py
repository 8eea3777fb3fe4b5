"""Containers, pods and units, read off the paths of cgroups; names from the container engines."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from tcprism.errors import UnknownTarget
from tcprism.events.context import Owner
from tcprism.events.escape import escape
from tcprism.names import bundles
from tcprism.names.workloads import Pod

# Docker, Podman, containerd and CRI-O all name a container's cgroup after its 64 digits.
_CONTAINER = re.compile(r"(?:^|[/:-])([0-9a-f]{64})(?=[./]|$)")
_POD = re.compile(r"pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12})")
_UNIT = re.compile(r"/([^/]+\.(?:service|scope|socket|mount))(?=/|$)")

_ENGINES = (Path("/run/docker.sock"), Path("/run/podman/podman.sock"))
_REFRESH = 5.0  # seconds before an engine is asked again
_WANTED = 1 << 10  # containers without a name that are asked for at once
_REMEMBERED = 1 << 14  # cgroups; those of a long run are more than there are at once


def describe(
    path: str,
    names: Callable[[str], str | None],
    pods: Callable[[str], Pod | None] = lambda _uid: None,
) -> Owner:
    """Return what the path of a cgroup says; `names` takes a container's id, `pods` a pod's uid."""
    container = _CONTAINER.findall(path)
    found = _POD.search(path)
    units = [] if container else _UNIT.findall(path)
    uid = found[1].replace("_", "-") if found else None
    name = names(container[-1]) if container else None
    pod = pods(uid) if uid else None
    return Owner(
        cgroup=escape(path.encode(errors="surrogateescape")),
        container_id=container[-1] if container else None,
        pod_uid=uid,
        unit=escape(units[-1].encode(errors="surrogateescape")) if units else None,
        container=name,
        namespace=pod.namespace if pod else None,
        workload=pod.workload if pod else None,
    )


class Names:
    """Names of containers as their engines tell them, asked for beside the stream.

    A name that is not known yet is None, and known a moment later if an engine knows it.
    """

    def __init__(
        self,
        engines: Iterable[Path] = _ENGINES,
        places: Iterable[bundles.Place] = bundles.PLACES,
    ) -> None:
        self._engines = tuple(engines)
        self._places = tuple(places)
        self._known: dict[str, str] = {}
        self._pods: dict[str, Pod] = {}
        self._wanted: set[str] = set()
        self._asked_at = -_REFRESH
        self._thread: threading.Thread | None = None

    def __call__(self, container_id: str) -> str | None:
        """Return the name of a container, or None."""
        name = self._known.get(container_id)
        if name is None:
            self._want(container_id)
        return name

    def _want(self, container_id: str) -> None:
        if len(self._wanted) < _WANTED:
            self._wanted.add(container_id)
        due = time.monotonic() - self._asked_at > _REFRESH
        if due and (self._thread is None or not self._thread.is_alive()):
            self._asked_at = time.monotonic()
            wanted, self._wanted = self._wanted, set()
            self._thread = threading.Thread(target=self.refresh, args=(wanted,), daemon=True)
            self._thread.start()

    def refresh(self, wanted: Iterable[str] = ()) -> dict[str, str]:
        """Ask now: read the bundles of containers that are `wanted`, and ask every engine.

        No engine is asked if bundles tell all that is wanted. What makes no sense is left out.
        """
        names: dict[str, str] = {}
        pods: dict[str, Pod] = {}
        wanted = set(wanted)
        for container_id in wanted:
            told = bundles.tell(container_id, self._places)
            names |= told[0]
            pods |= told[1]
        if not wanted or wanted - names.keys():
            self._ask_engines(names, pods)
        # Those of containers that are gone are kept, for events of theirs may still come.
        kept = len(self._known) < _REMEMBERED
        self._pods = {**self._pods, **pods} if kept else pods
        self._known = {**self._known, **names} if kept else names
        return self._known

    def _ask_engines(self, names: dict[str, str], pods: dict[str, Pod]) -> None:
        """Add what engines tell; one that does not answer is left out."""
        from tcprism.names.container_engine import ask  # HTTP: not at the start of every trace

        for engine in self._engines:
            told = ask(engine)
            names |= told[0]
            pods |= told[1]

    def pod(self, uid: str) -> Pod | None:
        """Return what is known of a pod; what asks for the name of its container asks for it."""
        return self._pods.get(uid)


class Owners:
    """From a cgroup v2 id to its owner. `path_of` finds the path of an id, None when it is gone."""

    def __init__(
        self,
        path_of: Callable[[int], str | None],
        names: Callable[[str], str | None],
        pods: Callable[[str], Pod | None] = lambda _uid: None,
    ):
        self._path_of = path_of
        self._names = names
        self._pods = pods
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
        return Owner() if path is None else describe(path, self._names, self._pods)


def find_cgroups(text: str, roots: Iterable[Path], names: Names) -> tuple[Path, ...]:
    """Return the cgroups of a container given by id, the beginning of one, or name.

    Kubernetes has one name for containers of several pods: those of all are returned. Raises
    UnknownTarget.
    """
    there = [
        (path, identity)
        for root in roots
        for path in root.rglob("*")
        if path.is_dir()
        for identity in _CONTAINER.findall(path.name)
    ]
    known = names.refresh(identity for _, identity in there)
    found = [path for path, identity in there if known.get(identity) == text]
    if not found and len(text) >= 4:
        found = [path for path, identity in there if identity.startswith(text)]
    if not found:
        raise UnknownTarget(
            f"--container: no running container is called {text!r}; give its name (where Docker,"
            " Podman, containerd or CRI-O tells it), its id, or the first 4 or more digits of that"
        )
    return tuple(found)
