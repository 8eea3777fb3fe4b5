"""What a cgroup's path says, and names from a container engine's socket."""

import json
import queue
import select
import socket
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tcprism.errors import UnknownTarget
from tcprism.events.context import Owner
from tcprism.names import container_engine
from tcprism.names.cgroups import Names, Owners, describe, find_cgroups
from tcprism.names.look_up import Machine
from tcprism.names.workloads import Told, workload

ID = "0123456789abcdef" * 4
POD = "01234567-89ab-cdef-0123-456789abcdef"


PATIENCE = 300.0  # seconds: the machine may be busy


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have time for an engine's answer where the machine stalls."""
    monkeypatch.setattr(container_engine, "_PATIENCE", PATIENCE)


def nameless(_container_id: str) -> None:
    return None


@pytest.mark.parametrize(
    ("path", "container_id", "pod_uid", "unit"),
    [
        ("/system.slice/nginx.service", None, None, "nginx.service"),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/vte-1.scope", None, None,
         "vte-1.scope"),
        (f"/system.slice/docker-{ID}.scope", ID, None, None),
        (f"/docker/{ID}", ID, None, None),
        (f"/machine.slice/libpod-{ID}.scope/container", ID, None, None),
        (f"/kubepods/burstable/pod{POD}/{ID}", ID, POD, None),
        (f"/kubepods.slice/kubepods-pod{POD.replace('-', '_')}.slice/crio-{ID}.scope", ID, POD,
         None),
        ("/", None, None, None),
        ("/deadbeef", None, None, None),
    ],
)  # fmt: skip
def test_paths(path: str, container_id: str | None, pod_uid: str | None, unit: str | None) -> None:
    assert describe(path, nameless) == Owner(path, container_id, pod_uid, unit)


def test_paths_are_not_trusted() -> None:
    assert describe("/a\x1b[31m.service", nameless).unit == "a\\x1b[31m.service"


def test_an_owner_is_looked_up_once() -> None:
    asked: list[int] = []

    def path_of(cgroup_id: int) -> str | None:
        asked.append(cgroup_id)
        return "/x.service" if cgroup_id == 5 else None

    owners = Owners(path_of, nameless)
    assert [owners(number).unit for number in (5, 5, 6, 0)] == [
        "x.service",
        "x.service",
        None,
        None,
    ]
    assert asked == [5, 6]


@contextmanager
def engine(path: Path, body: bytes) -> Iterator[Path]:
    """Have a container engine that gives one answer to everything."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def answer() -> None:
            with listener.accept()[0] as client:
                client.recv(65536)
                head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
                client.sendall(head + body)

        thread = threading.Thread(target=answer)
        thread.start()
        yield path
        thread.join()


def test_names_come_from_the_engine(tmp_path: Path) -> None:
    body = json.dumps([{"Id": ID, "Names": ["/web"]}, {"Id": "f" * 64}]).encode()
    with engine(tmp_path / "docker.sock", body) as path:
        names = Names(Machine([path, tmp_path / "podman.sock"]))
        assert names.refresh() == {ID: Told("web"), "f" * 64: Told()}
    assert names(ID) == Told("web")


KUBELET = {
    "io.kubernetes.pod.name": "cart-5d4f8c7b9-x2k4z",
    "io.kubernetes.pod.namespace": "shop",
    "io.kubernetes.pod.uid": POD,
}


def test_a_pods_workload_comes_from_the_engine(tmp_path: Path) -> None:
    """As cri-dockerd labels containers: the sandbox has the pod's labels, the others its name."""
    sandbox = {**KUBELET, "pod-template-hash": "5d4f8c7b9"}
    told = [
        {"Id": ID, "Names": ["/k8s_app"], "Labels": KUBELET},
        {"Id": "f" * 64, "Names": ["/k8s_POD"], "Labels": sandbox},
        {"Id": "e" * 64, "Names": ["/other"], "Labels": None},
    ]
    with engine(tmp_path / "docker.sock", json.dumps(told).encode()) as path:
        names = Names(Machine([path]))
        names.refresh()
    owners = Owners(lambda _: f"/kubepods/pod{POD}/{ID}", names)
    owner = owners(5)
    assert (owner.container, owner.namespace, owner.workload) == (
        "k8s_app",
        "shop",
        "deployment/cart",
    )


@pytest.mark.parametrize(
    ("name", "labels", "expected"),
    [
        ("cart-5d4f8c7b9-x2k4z", {"pod-template-hash": "5d4f8c7b9"}, "deployment/cart"),
        ("cart-5d4f8c7b9-x2k4z", {}, None),  # may be of a DaemonSet `cart-5d4f8c7b9`
        ("cart-5d4f8c7b9-x2k4z", {"pod-template-hash": "f00"}, None),
        ("db-0", {"statefulset.kubernetes.io/pod-name": "db-0"}, "statefulset/db"),
        ("db-0", {"statefulset.kubernetes.io/pod-name": "db-1"}, None),
        ("log-x2k4z", {"controller-revision-hash": "a", "pod-template-generation": "1"},
         "daemonset/log"),
        ("log-x2k4z", {"controller-revision-hash": "a"}, None),
        ("sum-28912-x2k4z", {"batch.kubernetes.io/job-name": "sum-28912"}, "job/sum-28912"),
        ("alone", {"app": "alone"}, None),
    ],
)  # fmt: skip
def test_workloads_are_told_if_they_are_proven(
    name: str, labels: dict[str, str], expected: str | None
) -> None:
    assert workload(name, labels) == expected


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b'[{"Id": "a", "Labels": 1}]',
        b"no JSON",
        b'{"message": "no"}',
        b'[{"Names": [1]}]',
        b"[1]",
        b"[" * 1_000_000,
        b'[{"Id": "a", "Names": ["\\udcff"]}]',
        b'{"a":' * 100_000,
    ],
    ids=range(9),
)
def test_an_engine_that_makes_no_sense(body: bytes, tmp_path: Path) -> None:
    with engine(tmp_path / "docker.sock", body) as path:
        assert Names(Machine([path])).refresh() == {}


@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 200 OK\r\n\r\n["])
def test_an_engine_that_drips(
    begun: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A byte now and then is no answer: the deadline is for the whole of it."""
    monkeypatch.setattr(container_engine, "_PATIENCE", 0.5)
    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def drip() -> None:
            with listener.accept()[0] as client, suppress(OSError):
                client.sendall(begun)
                while True:
                    client.sendall(b" ")
                    select.select([], [], [], 0.02)

        thread = threading.Thread(target=drip)
        thread.start()
        began = time.monotonic()
        assert Names(Machine([path])).refresh() == {}
        assert time.monotonic() - began < PATIENCE
        thread.join(PATIENCE)  # its client went away
    assert not thread.is_alive()


def test_a_name_never_waits_for_the_engine(tmp_path: Path) -> None:
    """It is asked for beside the stream, and not again at once."""
    body = json.dumps([{"Id": ID, "Names": ["/web"]}]).encode()
    with engine(tmp_path / "docker.sock", body) as path:
        names = Names(Machine([path]))
        assert names(ID) in (None, Told("web"))
    assert names("f" * 64) is None


def test_each_container_is_asked_for_at_once_and_not_again() -> None:
    asked: queue.Queue[set[str]] = queue.Queue()

    def look_up(wanted: Collection[str]) -> dict[str, Told]:
        asked.put(set(wanted))
        return {}

    names = Names(look_up)
    for number in range(3):
        wanted = f"{number:064}"
        seen: set[str] = set()
        while wanted not in seen:  # the thread that asked before may not have ended yet
            assert names(wanted) is None
            with suppress(queue.Empty):
                seen |= asked.get(timeout=0.01)
        assert seen == {wanted}


def test_containers_are_found_by_id_and_name(tmp_path: Path) -> None:
    cgroup = tmp_path / "system.slice" / f"docker-{ID}.scope"
    cgroup.mkdir(parents=True)
    for text in (ID, ID[:8]):
        assert find_cgroups(text, [tmp_path], Names(Machine([]))) == (cgroup,)
    body = json.dumps([{"Id": ID, "Names": ["/web"]}]).encode()
    with engine(tmp_path / "docker.sock", body) as path:
        assert find_cgroups("web", [tmp_path], Names(Machine([path]))) == (cgroup,)


@pytest.mark.parametrize("text", ["web", "012", "fff0"])
def test_a_container_that_is_not_there(text: str, tmp_path: Path) -> None:
    (tmp_path / f"docker-{ID}.scope").mkdir()
    with pytest.raises(UnknownTarget, match="--container"):
        find_cgroups(text, [tmp_path], Names(Machine([])))
