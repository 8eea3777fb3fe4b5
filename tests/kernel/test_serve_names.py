"""Names of containers that start after `tcprism serve` has given up its privileges."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tcprism.kernel import confinement
from tcprism.mounts import cgroup_roots
from tcprism.names.helper import Helper
from tcprism.names.workloads import Told
from tests.support.engine import Engine, body
from tests.support.forked import Script
from tests.support.netns import Netns
from tests.support.serving import Server, samples, serving

pytestmark = pytest.mark.native

APP, SANDBOX, WEB, LATER = "0a" * 32, "1b" * 32, "2c" * 32, "3d" * 32
POD = "01234567-89ab-cdef-0123-456789abcdef"
OF_APP = {
    "io.kubernetes.container.name": "app",
    "io.kubernetes.pod.name": "cart-5d4f8c7b9-x2k4z",
    "io.kubernetes.pod.namespace": "shop",
    "io.kubernetes.pod.uid": POD,
}
OF_POD = {**OF_APP, "io.kubernetes.container.name": "POD", "pod-template-hash": "5d4f8c7b9"}

# Connects once for each line, from the cgroup that the line names.
CLIENT = """
import socket, sys
for line in sys.stdin:
    with open(line.strip(), "w") as processes:
        processes.write("0")
    socket.create_connection(("127.0.0.1", 7000)).close()
"""


@pytest.fixture
def cgroups() -> Iterator[Callable[[str], str]]:
    """Makes cgroups that are called as containers'."""
    if not (roots := cgroup_roots()):
        pytest.skip("no cgroup2 file system is mounted")
    above = roots[0] / f"names-{os.getpid()}"
    above.mkdir()
    made = []

    def make(container: str) -> str:
        made.append(above / f"docker-{container}.scope")
        made[-1].mkdir()
        return f"{made[-1]}/cgroup.procs"

    yield make
    for path in (*made, above):
        path.rmdir()


@pytest.fixture
def client(netns: Netns, cgroups: Callable[[str], str]) -> Iterator[Script]:
    """A process that connects, to a server that accepts."""
    (listener := netns.socket()).bind(("127.0.0.1", 7000))
    listener.listen(1000)
    with closing(listener), closing(Script(netns, CLIENT)) as script:
        yield script


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """What is /run for `serve`: no container has been started yet."""
    (tmp_path / "run/containers/storage").mkdir(parents=True)
    return tmp_path / "run"


def run_container(runs: Path, container: str, labels: dict[str, str]) -> None:
    """Write down a container as CRI-O does."""
    folder = runs / "containers/storage/overlay-containers" / container / "userdata"
    folder.mkdir(parents=True, mode=0o700)
    told = {
        "io.container.manager": "cri-o",
        "io.kubernetes.cri-o.SandboxID": SANDBOX,
        "io.kubernetes.cri-o.Labels": json.dumps(labels),
        **labels,
    }
    (folder / "config.json").write_text(json.dumps({"annotations": told}))
    (folder / "config.json").chmod(0o600)


def connect(client: Script, processes: str) -> None:
    client.stdin.write(processes + "\n")
    client.stdin.flush()


def series(server: Server) -> list[dict[str, str]]:
    """What is told of connections from containers."""
    return [
        labels
        for name, labels, _ in samples(server.get())
        if name == "system_network_tcp_connection_successes_total" and "container_name" in labels
    ]


def await_series(server: Server, client: Script, processes: str, container: str) -> dict[str, str]:
    """Connect again and again until there is a series of a container; return its labels."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        connect(client, processes)
        for labels in series(server):
            if labels["container_name"] == container:
                return labels
        time.sleep(0.2)  # in which connections may come with the name, or not yet
    raise AssertionError((container, series(server), server.said))


def helper_of(server: Server) -> int:
    """Return the child that looks names up: the one without any capability."""
    (found,) = [
        int(child)
        for child in Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
        .read_text()
        .split()
        if re.search(r"^CapEff:\t0+$", status(int(child)), re.M)
    ]
    return found


def status(pid: int) -> str:
    return Path(f"/proc/{pid}/status").read_text()


def test_a_container_that_starts_later_has_its_names(
    client: Script, cgroups: Callable[[str], str], runs: Path
) -> None:
    with serving("--netns", str(client.pid), runs=runs) as server:
        helper = helper_of(server)
        for line in ("CapPrm:\t0+", "CapBnd:\t0+", "NoNewPrivs:\t1", "Seccomp:\t2", "Uid:\t0.*"):
            assert re.search(f"^{line}$", status(helper), re.M), line
        assert [os.readlink(each)[:7] for each in Path(f"/proc/{helper}/fd").iterdir()] == [
            "socket:"
        ]
        run_container(runs, SANDBOX, OF_POD)
        run_container(runs, APP, OF_APP)
        labels = await_series(server, client, cgroups(APP), "app")
        assert (labels["k8s_namespace_name"], labels["k8s_workload"]) == ("shop", "deployment/cart")
        with closing(Engine(runs / "docker.sock")) as engine:
            (runs / "docker.sock").chmod(0o600)
            engine.answer = body([{"Id": WEB, "Names": ["/web"]}])
            labels = await_series(server, client, cgroups(WEB), "web")
        assert labels["k8s_namespace_name"] == labels["k8s_workload"] == ""
        assert server.stop() == 0
        assert not Path(f"/proc/{helper}").exists()


def test_without_its_child_it_goes_on(
    client: Script, cgroups: Callable[[str], str], runs: Path
) -> None:
    """Names are unknown then, and it says so once."""
    with serving("--netns", str(client.pid), runs=runs) as server:
        os.kill(helper_of(server), signal.SIGKILL)
        run_container(runs, LATER, OF_APP)
        processes = cgroups(LATER)
        await_series(server, client, processes, LATER[:12])
        deadline = time.monotonic() + 60
        while not (said := [line for line in server.said if line.startswith("names of new")]):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        await_series(server, client, processes, LATER[:12])
        assert len(said) == 1
        assert server.stop() == 0


def test_the_child_ends_with_a_parent_that_is_killed(runs: Path) -> None:
    with serving(runs=runs) as server:
        helper = os.pidfd_open(helper_of(server))
    with open(helper):
        assert select.select([helper], [], [], 60)[0]


def test_the_child_answers_nothing_but_what_containers_are_called(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")

    def look_up(wanted: Collection[str]) -> dict[str, Told]:
        """Look elsewhere, as if what was read had taken over the child."""
        (container,) = wanted
        if container == WEB:
            return {WEB: Told("x" * 5000)}
        try:
            return {APP: Told(secret.read_text())}
        except PermissionError:
            return {APP: Told("refused"), LATER: Told("another")}

    helper = Helper(look_up)
    with closing(helper):
        expected = {APP: Told("refused")} if confinement.landlock_version() else {}
        for question in ("/etc/passwd", APP[:63], APP + "0", APP.upper(), "\n" + APP, WEB, SANDBOX):
            assert helper([question]) == {}
        if expected:
            assert helper([APP, SANDBOX]) == expected
    assert helper([APP]) == {}
