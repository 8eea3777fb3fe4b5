"""What engines tell of containers, and the Kubernetes workload that a pod's labels prove.

A pod's name alone proves nothing: `cart-5d4f8c7b9-x2k4z` may be a pod of the DaemonSet
`cart-5d4f8c7b9`. Each controller sets labels of its own, though
(https://kubernetes.io/docs/reference/labels-annotations-taints/), and makes names from its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from tcprism.events.escape import escape

NAME, NAMESPACE, UID = (f"io.kubernetes.pod.{each}" for each in ("name", "namespace", "uid"))
_HASH = "pod-template-hash"  # of a Deployment's ReplicaSet
_ORDINAL = "statefulset.kubernetes.io/pod-name"
_DAEMON = ("controller-revision-hash", "pod-template-generation")
_JOB = "batch.kubernetes.io/job-name"
_RANDOM = r"-[a-z0-9]{5}"  # what the API server adds to a name that it generates


class Told(NamedTuple):
    """What an engine tells of a container: its name, its pod's namespace and proven workload."""

    name: str | None = None
    namespace: str | None = None
    workload: str | None = None


def workload(name: str, labels: Mapping[str, str]) -> str | None:
    """Return a pod's workload, as kubectl names it ("deployment/cart"); None: it is not proven."""
    if job := labels.get(_JOB):
        return f"job/{job}"
    if labels.get(_ORDINAL) == name:
        return _named("statefulset", r"-[0-9]+", name)
    if hashed := labels.get(_HASH):
        return _named("deployment", f"-{re.escape(hashed)}{_RANDOM}", name)
    if all(label in labels for label in _DAEMON):
        return _named("daemonset", _RANDOM, name)
    return None


def _named(kind: str, end: str, name: str) -> str | None:
    found = re.fullmatch(f"(.+){end}", name)
    return f"{kind}/{found[1]}" if found else None


def pods(labels: Iterable[Mapping[str, Any]]) -> dict[str, Told]:
    """Return what the labels of containers tell of their pods by uid: all but a name.

    They are those that the kubelet gives to containers; the one that only holds a pod's namespaces
    has the labels of the pod.
    """
    merged: dict[str, dict[str, Any]] = {}
    for each in labels:
        if uid := each.get(UID):
            merged.setdefault(str(uid), {}).update(each)
    return {uid: of_labels(its) for uid, its in merged.items()}


def of_labels(labels: Mapping[str, Any]) -> Told:
    """Return what the labels of a pod tell of it: all but a name. Raises ValueError."""
    its = {str(name): str(text) for name, text in labels.items()}
    return Told(
        namespace=shown(its.get(NAMESPACE)), workload=shown(workload(its.get(NAME, ""), its))
    )


def shown(text: str | None) -> str | None:
    """Return a text as it may be shown, None if there is none. Raises ValueError."""
    return escape(text.encode()) if text else None
