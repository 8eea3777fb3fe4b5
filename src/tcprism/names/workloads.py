"""Which Kubernetes workload a pod belongs to, where its name and labels prove it.

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


class Pod(NamedTuple):
    """What a container engine tells of a pod: its namespace, and its workload if that is proven."""

    namespace: str | None
    workload: str | None


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


def pods(containers: Iterable[Mapping[str, Any]]) -> dict[str, Pod]:
    """Return the pods of containers by their uid, from the labels that the kubelet gives these.

    The container that only holds a pod's namespaces has the labels of the pod.
    """
    labels: dict[str, dict[str, str]] = {}
    for each in containers:
        its = {str(name): str(text) for name, text in (each.get("Labels") or {}).items()}
        if uid := its.get(UID):
            labels.setdefault(uid, {}).update(its)
    return {
        uid: Pod(_shown(its.get(NAMESPACE)), _shown(workload(its.get(NAME, ""), its)))
        for uid, its in labels.items()
    }


def _shown(text: str | None) -> str | None:
    return escape(text.encode()) if text else None
