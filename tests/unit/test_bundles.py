"""What containerd and CRI-O write down of Kubernetes' containers, true and hostile."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tcprism.errors import UnknownTarget
from tcprism.events.context import Owner
from tcprism.names import bundles
from tcprism.names.cgroups import Names, Owners, find_cgroups
from tcprism.names.look_up import Machine

APP, SANDBOX, OTHER = "0123456789abcdef" * 4, "fedcba9876543210" * 4, "a" * 64
POD = "01234567-89ab-cdef-0123-456789abcdef"
NAME = "cart-5d4f8c7b9-x2k4z"
CONTAINERD, K3S, CRIO = bundles.PLACES

# As containerd 2 writes them: internal/cri/annotations, DefaultCRIAnnotations.
OF_CONTAINERD = {
    "io.kubernetes.cri.sandbox-id": SANDBOX,
    "io.kubernetes.cri.sandbox-namespace": "shop",
    "io.kubernetes.cri.sandbox-uid": POD,
    "io.kubernetes.cri.sandbox-name": NAME,
    "io.kubernetes.cri.container-name": "app",
    "io.kubernetes.cri.image-name": "docker.io/library/cart:1",
    "io.kubernetes.cri.container-type": "container",
}

# The kubelet's labels: of each container, and of a pod with its own.
OF_KUBELET = {
    "io.kubernetes.container.name": "app",
    "io.kubernetes.pod.name": NAME,
    "io.kubernetes.pod.namespace": "shop",
    "io.kubernetes.pod.uid": POD,
}
OF_POD = {**OF_KUBELET, "io.kubernetes.container.name": "POD", "pod-template-hash": "5d4f8c7b9"}


def of_crio(labels: dict[str, str], kind: str) -> dict[str, str]:
    """As CRI-O 1.3x writes them: its own, then the kubelet's labels over all."""
    return {
        "io.container.manager": "cri-o",
        "io.kubernetes.cri-o.ContainerType": kind,
        "io.kubernetes.cri-o.SandboxID": SANDBOX,
        "io.kubernetes.cri-o.Labels": json.dumps(labels),
        **labels,
    }


def below(root: Path) -> list[bundles.Place]:
    """The places of a machine whose root is elsewhere."""
    return [place._replace(folder=root / place.folder.relative_to("/")) for place in bundles.PLACES]


def write(root: Path, place: bundles.Place, container: str, annotations: Any) -> Path:
    file = root / place.folder.relative_to("/") / container / place.file
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"ociVersion": "1.2.1", "annotations": annotations}))
    return file


def owner(root: Path, container: str = APP) -> Owner:
    names = Names(Machine([], below(root)))
    names.refresh([container])
    return Owners(lambda _: f"/kubepods/pod{POD}/{container}", names)(5)


def told(root: Path) -> tuple[str | None, str | None, str | None]:
    found = owner(root)
    return found.container, found.namespace, found.workload


def test_the_places_are_the_engines_own() -> None:
    task = "io.containerd.runtime.v2.task/k8s.io"
    assert [str(place.folder / APP / place.file) for place in bundles.PLACES] == [
        f"/run/containerd/{task}/{APP}/config.json",
        f"/run/k3s/containerd/{task}/{APP}/config.json",
        f"/run/containers/storage/overlay-containers/{APP}/userdata/config.json",
    ]


@pytest.mark.parametrize("place", [CONTAINERD, K3S], ids=["containerd", "k3s"])
def test_containerd_tells_names_without_labels(place: bundles.Place, tmp_path: Path) -> None:
    write(tmp_path, place, APP, OF_CONTAINERD)
    assert told(tmp_path) == ("app", "shop", None)
    older = {key: text for key, text in OF_CONTAINERD.items() if not key.endswith("-uid")}
    write(tmp_path, place, APP, older)  # before 1.6.11
    assert told(tmp_path) == ("app", "shop", None)


def test_crio_tells_the_labels_of_the_pod_with_its_sandbox(tmp_path: Path) -> None:
    write(tmp_path, CRIO, APP, of_crio(OF_KUBELET, "container"))
    assert told(tmp_path) == ("app", "shop", None)
    write(tmp_path, CRIO, SANDBOX, of_crio(OF_POD, "sandbox"))
    assert told(tmp_path) == ("app", "shop", "deployment/cart")
    assert owner(tmp_path, SANDBOX).container == "POD"


def test_a_pod_cannot_pass_for_another(tmp_path: Path) -> None:
    """Annotations of a pod come before what the kubelet says, though after CRI-O's own."""
    write(tmp_path, CRIO, APP, of_crio(OF_KUBELET, "container"))
    claimed = {**OF_POD, "io.kubernetes.pod.namespace": "bank", "io.kubernetes.pod.uid": "other"}
    sandbox = of_crio(OF_POD, "sandbox")
    write(tmp_path, CRIO, SANDBOX, {**sandbox, "io.kubernetes.cri-o.Labels": json.dumps(claimed)})
    assert told(tmp_path) == ("app", "shop", "deployment/cart")
    of_another = {**OF_POD, "io.kubernetes.pod.uid": "other"}
    write(tmp_path, CRIO, SANDBOX, of_crio(of_another, "sandbox"))
    assert told(tmp_path) == ("app", "shop", None)
    write(tmp_path, CRIO, APP, {**of_crio(OF_KUBELET, "container"), **OF_CONTAINERD})
    assert told(tmp_path) == ("app", "shop", None)


def test_what_podman_runs_is_no_pod_of_kubernetes(tmp_path: Path) -> None:
    write(tmp_path, CRIO, APP, {**OF_KUBELET, "io.container.manager": "libpod"})
    assert told(tmp_path) == (None, None, None)


def test_only_the_bundle_of_the_container_is_read(tmp_path: Path) -> None:
    write(tmp_path, CONTAINERD, APP, OF_CONTAINERD)
    other = write(tmp_path, CONTAINERD, OTHER, OF_CONTAINERD)
    for identity in ("..", f"../k8s.io/{APP}", APP.upper(), APP + "\n", ""):
        assert bundles.tell(identity, below(tmp_path)) is None
    other.unlink()
    other.symlink_to(other.parent.parent / APP / "config.json")
    assert bundles.tell(OTHER, below(tmp_path)) is None
    other.unlink()
    os.mkfifo(other)
    assert bundles.tell(OTHER, below(tmp_path)) is None


def test_containers_are_found_by_the_kubelets_name(tmp_path: Path) -> None:
    """The same container of two pods."""
    (cgroups := tmp_path / "cgroup").mkdir()
    paths = [cgroups / f"cri-containerd-{each}.scope" for each in (APP, OTHER, SANDBOX)]
    for path in paths:
        path.mkdir()
    for each in (APP, OTHER):
        write(tmp_path, CONTAINERD, each, OF_CONTAINERD)
    names = Names(Machine([], below(tmp_path)))
    assert set(find_cgroups("app", [cgroups], names)) == set(paths[:2])
    assert find_cgroups(SANDBOX[:4], [cgroups], names) == (paths[2],)
    with pytest.raises(UnknownTarget, match="--container"):
        find_cgroups("cart", [cgroups], names)


KEYS = st.sampled_from([*of_crio(OF_POD, "sandbox"), *OF_CONTAINERD])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from([SANDBOX, "cri-o"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=6),
    max_leaves=12,
)
BENT = st.dictionaries(KEYS, VALUES, max_size=6).map(
    lambda bent: {**of_crio(OF_POD, "sandbox"), **OF_CONTAINERD, **bent}
)

bounded = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def shown(root: Path) -> list[str]:
    return [part for part in bundles.tell(APP, below(root)) or () if part is not None]


@pytest.mark.parametrize("place", bundles.PLACES, ids=["containerd", "k3s", "crio"])
def test_any_json_is_names_that_can_be_shown(place: bundles.Place, tmp_path: Path) -> None:
    @bounded
    @given(BENT | VALUES)
    @example({**OF_CONTAINERD, "io.kubernetes.cri.container-name": "\x1b[2J\ud800"})
    @example({**OF_CONTAINERD, "io.kubernetes.cri.container-name": "\x1b[2J\n"})
    def check(annotations: Any) -> None:
        write(tmp_path, place, APP, annotations)
        assert all(text.isprintable() for text in shown(tmp_path))

    check()


@bounded
@given(st.binary(max_size=200))
@example(b"[" * 200_000)
@example(b'{"annotations":' * 100_000)
def test_any_bytes_are_no_error(tmp_path: Path, content: bytes) -> None:
    write(tmp_path, CONTAINERD, APP, {}).write_bytes(content)
    shown(tmp_path)


def test_more_than_a_bundle_has_is_not_read(tmp_path: Path) -> None:
    long = {**OF_CONTAINERD, "more": "x" * (5 << 20)}
    write(tmp_path, CONTAINERD, APP, long)
    assert shown(tmp_path) == []
