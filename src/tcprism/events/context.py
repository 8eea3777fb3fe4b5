"""Context: what some numbers in records mean on the machine where they were recorded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Owner:
    """Where a process runs, read off the path of its cgroup; each is None when it is not there.

    `container_id` is what the container engine calls it, `pod_uid` Kubernetes' id of the pod and
    `unit` the systemd unit. `container` is the engine's name for it; by the labels that the engine
    tells, the pod is in the Kubernetes namespace `namespace` and belongs to `workload`
    ("deployment/cart").
    """

    cgroup: str | None = None
    container_id: str | None = None
    pod_uid: str | None = None
    unit: str | None = None
    container: str | None = None
    namespace: str | None = None
    workload: str | None = None


def _unknown(_number: int) -> str | None:
    return None


def _no_interface(_netns: int, _index: int) -> str | None:
    return None


def _nobody(_cgroup_id: int) -> Owner:
    return Owner()


@dataclass(frozen=True, slots=True)
class Context:
    """Look-ups from a number in a record to its meaning.

    `owner` takes a cgroup v2 id, `drop_reason` an enum skb_drop_reason, `reset_reason` an enum
    sk_rst_reason. Each remembers what it knows; they do not block. `interface` takes a network
    namespace and an index in it.
    """

    owner: Callable[[int], Owner] = _nobody
    drop_reason: Callable[[int], str | None] = _unknown
    reset_reason: Callable[[int], str | None] = _unknown
    interface: Callable[[int, int], str | None] = _no_interface
