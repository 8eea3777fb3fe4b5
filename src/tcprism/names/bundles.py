"""Names out of the OCI runtime bundles that containerd and CRI-O keep of Kubernetes' containers.

The kubelet tells both what a container is called, and they write it down for the runtime: as
`annotations` in the bundle's config.json (OCI runtime-spec, config.md). So nobody has to be asked.
Names of annotations: containerd's internal/cri/annotations, CRI-O's internal/annotations; CRI-O
also writes all labels that the kubelet gives (k8s.io/kubelet, pkg/types/labels.go) over the rest.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tcprism.names.workloads import NAME, NAMESPACE, UID, Told, of_labels, shown

_LONGEST = 1 << 22  # bytes of a config.json
_ID = re.compile(r"[0-9a-f]{64}")
_CONTAINER = "io.kubernetes.container.name"
_CONTAINERD = {
    "io.kubernetes.cri.container-name": _CONTAINER,  # not of the one that holds the namespaces
    "io.kubernetes.cri.sandbox-name": NAME,
    "io.kubernetes.cri.sandbox-namespace": NAMESPACE,
}
_MANAGER, _SANDBOX = "io.container.manager", "io.kubernetes.cri-o.SandboxID"
_LABELS = "io.kubernetes.cri-o.Labels"  # JSON; the sandbox's are those of the pod

_MAKES_NO_SENSE = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)

Annotations = Mapping[str, Any]


class Place(NamedTuple):
    """Where an engine has its bundles, and how the kubelet's labels follow from annotations.

    `file` is the path of config.json in a container's folder below `folder`. `labels` takes the
    annotations of a container and what reads those of another.
    """

    folder: Path
    file: str
    labels: Callable[[Annotations, Callable[[str], Annotations]], dict[str, str]]

    def annotations(self, container_id: str) -> Annotations:
        """Return the annotations of a container. Raises what makes no sense."""
        if not _ID.fullmatch(container_id):
            raise ValueError("no id of a container")
        found: Annotations = json.loads(_read(self.folder / container_id / self.file))[
            "annotations"
        ]
        return found


def _read(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("no file")
        return file.read(_LONGEST)


def _of_containerd(found: Annotations, _of: Callable[[str], Annotations]) -> dict[str, str]:
    return {label: str(found[key]) for key, label in _CONTAINERD.items() if key in found}


def _of_crio(found: Annotations, of: Callable[[str], Annotations]) -> dict[str, str]:
    if found[_MANAGER] != "cri-o":  # Podman's bundles are in the same folder
        return {}
    its = {key: str(found[key]) for key in (_CONTAINER, NAME, NAMESPACE, UID) if key in found}
    try:
        sandbox = of(found[_SANDBOX])
        # Whoever makes a pod may write over `Labels` by an annotation, but not over what the
        # kubelet says of a container: that comes last.
        return {**(json.loads(sandbox[_LABELS]) if sandbox[UID] == its[UID] else {}), **its}
    except _MAKES_NO_SENSE:
        return its


PLACES = (
    *(
        Place(Path(state, "io.containerd.runtime.v2.task/k8s.io"), "config.json", _of_containerd)
        for state in ("/run/containerd", "/run/k3s/containerd")  # the latter: k3s and RKE2
    ),
    Place(Path("/run/containers/storage/overlay-containers"), "userdata/config.json", _of_crio),
)


def tell(container_id: str, places: Iterable[Place]) -> Told | None:
    """Return what a container's bundle tells; None: nothing."""
    for place in places:
        try:
            labels = place.labels(place.annotations(container_id), place.annotations)
            if labels:
                return of_labels(labels)._replace(name=shown(labels.get(_CONTAINER)))
        except _MAKES_NO_SENSE:
            continue
    return None
