"""What a cgroup's path says, and names from a container engine's socket."""

import json
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tcprism.errors import UnknownTarget
from tcprism.events.context import Owner
from tcprism.names.cgroups import Names, Owners, describe, find_cgroups

ID = "0123456789abcdef" * 4
POD = "01234567-89ab-cdef-0123-456789abcdef"


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
        names = Names([path, tmp_path / "podman.sock"])
        assert names.refresh() == {ID: "web"}
    assert names(ID) == "web"


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"no JSON",
        b'{"message": "no"}',
        b'[{"Names": [1]}]',
        b"[1]",
        b"[" * 1_000_000,
        b'[{"Id": "a", "Names": ["\\udcff"]}]',
        b'{"a":' * 100_000,
    ],
    ids=range(8),
)
def test_an_engine_that_makes_no_sense(body: bytes, tmp_path: Path) -> None:
    with engine(tmp_path / "docker.sock", body) as path:
        assert Names([path]).refresh() == {}


@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 200 OK\r\n\r\n["])
def test_an_engine_that_drips(begun: bytes, tmp_path: Path) -> None:
    """A byte now and then is no answer: the deadline is for the whole of it."""
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
        assert Names([path]).refresh() == {}
        assert time.monotonic() - began < 30
        thread.join(60)  # its client went away
    assert not thread.is_alive()


def test_a_name_never_waits_for_the_engine(tmp_path: Path) -> None:
    """It is asked for beside the stream, and not again at once."""
    body = json.dumps([{"Id": ID, "Names": ["/web"]}]).encode()
    with engine(tmp_path / "docker.sock", body) as path:
        names = Names([path])
        assert names(ID) in (None, "web")
    assert names("f" * 64) is None


def test_containers_are_found_by_id_and_name(tmp_path: Path) -> None:
    cgroup = tmp_path / "system.slice" / f"docker-{ID}.scope"
    cgroup.mkdir(parents=True)
    for text in (ID, ID[:8]):
        assert find_cgroups(text, [tmp_path], Names([])) == (cgroup,)
    body = json.dumps([{"Id": ID, "Names": ["/web"]}]).encode()
    with engine(tmp_path / "docker.sock", body) as path:
        assert find_cgroups("web", [tmp_path], Names([path])) == (cgroup,)


@pytest.mark.parametrize("text", ["web", "012", "fff0"])
def test_a_container_that_is_not_there(text: str, tmp_path: Path) -> None:
    (tmp_path / f"docker-{ID}.scope").mkdir()
    with pytest.raises(UnknownTarget, match="--container"):
        find_cgroups(text, [tmp_path], Names([]))
