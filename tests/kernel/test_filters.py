"""Each filter: what is wanted comes, all of it, and nothing else does."""

import base64
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import workload
from tests.support.netns import PATIENCE, Netns, Pair, joined, namespace
from tests.support.tracer import Event, Tracer, tracing_all
from tests.support.workload import Call

RING = ["--ring-size", "1M"]  # many run at once
COMMON = ["--kinds", "send,recv", "--payload", "1024", *RING]
SCENARIO = "send"  # makes 5 sends, and as many receives or more, by both ends


@contextmanager
def cgroup() -> Iterator[Path]:
    """Make a cgroup v2 directory; remove it in the end."""
    mounts = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    root = next(fields[1] for fields in mounts if fields[2] == "cgroup2")
    path = Path(root, f"tcprism-test-{os.getpid()}")
    path.mkdir()
    try:
        yield path
    finally:
        deadline = time.monotonic() + PATIENCE
        while path.exists():
            with suppress(OSError):  # who has ended may take a moment to leave it
                path.rmdir()
            assert time.monotonic() < deadline


class Actor:
    """A workload that waits until it is told to go, so that its pid is known before."""

    def __init__(self, directory: Path, name: str, netns: Netns, variant: str) -> None:
        bits, addresses, port = workload.VARIANTS[variant]
        self.netns = netns
        self.port = port + 2 * workload.scenarios().index(SCENARIO)  # its server's
        self._log = directory / f"{name}.truth"
        program = shutil.copy(workload.build(bits), directory / name)
        command = f"read go; {program} calls {self._log} {addresses} {port} {SCENARIO}; exit $?"
        self._process = subprocess.Popen(
            netns.command("sh", "-c", command), stdin=subprocess.PIPE, text=True
        )
        self.shell = self._process.pid  # nsenter has become the shell

    def join(self, group: Path) -> None:
        """Move into a cgroup."""
        (group / "cgroup.procs").write_text(str(self.shell))

    def act(self) -> list[Call]:
        """Go, and return what was done."""
        self._process.communicate("go\n", timeout=300)
        assert self._process.returncode == 0
        return workload.read_truth(self._log)

    def close(self) -> None:
        """End it if it never was told to go."""
        self._process.kill()
        self._process.communicate()


@dataclass
class Scene:
    """Four actors in two namespaces, with different addresses, ports, names and cgroups."""

    actors: dict[str, Actor]
    group: Path

    def namespaces(self) -> list[str]:
        """Return the arguments that keep everybody else's traffic out."""
        paths = sorted({actor.netns.path for actor in self.actors.values()})
        return [argument for path in paths for argument in ("--netns", path)]


@contextmanager
def acted(directory: Path) -> Iterator[Scene]:
    """Have the actors wait for their cue; remove all in the end."""
    with ExitStack() as stack:
        one, other = stack.enter_context(namespace()), stack.enter_context(namespace())
        group = stack.enter_context(cgroup())
        cast = {"alpha": (one, "ipv4"), "beta": (one, "ipv6"),
                "gamma": (other, "mapped"), "delta": (other, "32-bit")}  # fmt: skip
        actors = {name: Actor(directory, name, *where) for name, where in cast.items()}
        for actor in actors.values():
            stack.callback(actor.close)
        actors["beta"].join(group)
        actors["delta"].join(group)
        yield Scene(actors, group)


Wanted = Callable[[str, Call], bool]


@dataclass(frozen=True)
class Case:
    """A filter, and what it must let pass."""

    name: str
    arguments: Callable[[Scene], list[str]]
    wanted: Wanted


def shells(scene: Scene, *names: str) -> str:
    return ",".join(str(scene.actors[name].shell) for name in names)


def only(*names: str) -> Wanted:
    return lambda name, call: name in names


# alpha: ipv4, its server on 21004. beta: ipv6, 22004, in the cgroup. Both in the first namespace.
# gamma: mapped, 23004. delta: 32-bit ipv4, 24004, in the cgroup. Both in the second namespace.
CASES = [
    Case("nobody's pid", lambda s: ["--pid", shells(s, "alpha")], only()),
    Case("follow", lambda s: ["--follow", "--pid", shells(s, "alpha")], only("alpha")),
    Case("pids", lambda s: ["--follow", "--pids", shells(s, "alpha", "delta")],
         only("alpha", "delta")),
    Case("pid twice", lambda s: ["--follow", "--pid", shells(s, "beta"),
                                 "--pid", shells(s, "gamma")], only("beta", "gamma")),
    Case("comm", lambda s: ["--comm", "gamma"], only("gamma")),
    Case("comm twice", lambda s: ["--comm", "gamma", "--comm", "beta"], only("beta", "gamma")),
    Case("host", lambda s: ["--host", "127.0.0.1"], only("alpha", "gamma", "delta")),
    Case("host ipv6", lambda s: ["--host", "::1"], only("beta")),
    Case("prefix", lambda s: ["--host", "127.0.0.0/9"], only("alpha", "gamma", "delta")),
    Case("prefix ipv6", lambda s: ["--host", "::/64"], only("beta")),
    Case("prefix of others", lambda s: ["--host", "127.128.0.0/9"], only()),
    Case("hosts", lambda s: ["--host", "127.0.0.1", "--host", "::1"],
         only("alpha", "beta", "gamma", "delta")),
    Case("port", lambda s: ["--port", "21004"], only("alpha")),
    Case("port range", lambda s: ["--port", "21000-22003"], only("alpha")),
    Case("port range to the end", lambda s: ["--port", "22004-65535"],
         only("beta", "gamma", "delta")),
    Case("local port", lambda s: ["--local-port", "21004"],
         lambda name, call: call.local_port == 21004),
    Case("remote port", lambda s: ["--remote-port", "23004-24004"],
         lambda name, call: 23004 <= call.remote_port <= 24004),
    Case("cgroup", lambda s: ["--cgroup", str(s.group)], only("beta", "delta")),
    Case("netns by path", lambda s: ["--netns", s.actors["alpha"].netns.path],
         only("alpha", "beta")),
    Case("netns by pid", lambda s: ["--netns", shells(s, "gamma")], only("gamma", "delta")),
    Case("family 4", lambda s: ["--family", "4"], only("alpha", "gamma", "delta")),
    Case("family 6", lambda s: ["--family", "6"], only("beta")),
]  # fmt: skip

# In two runs the filters that ask something of the kernel: what the virtual machines repeat.
# Only the cgroup is against alpha, only the name against beta, only the port against half of delta.
COMBINATIONS = [
    Case("cgroup, comm and remote port",
         lambda s: ["--cgroup", str(s.group), "--comm", "alpha", "--comm", "delta",
                    "--remote-port", "21004,22004,24004"],
         lambda name, call: name == "delta" and call.remote_port == 24004),
    Case("follow, netns and host", lambda s: ["--follow", "--pid", shells(s, "alpha", "beta"),
                                              "--netns", shells(s, "beta"),
                                              "--host", "::/16", "--port", "1-65535"],
         only("beta")),
]  # fmt: skip


def identity(event: Event) -> tuple[object, ...]:
    payload = base64.b64decode(event["payload"] or "")
    return (event["kind"], event["local_port"], event["remote_port"], event["bytes"], payload)


def identity_of_call(call: Call) -> tuple[object, ...]:
    return (call.kind, call.local_port, call.remote_port, call.bytes, call.data)


@dataclass
class Outcome:
    """One case's tracer, and what all actors did meanwhile."""

    tracer: Tracer
    done: list[tuple[str, Call]]


def run_cases(cases: list[Case], directory: Path) -> dict[str, Outcome]:
    """Trace one performance with a tracer for each case."""
    with acted(directory) as scene:
        runs = {}
        for number, case in enumerate(cases):
            arguments = case.arguments(scene)
            if "--netns" not in arguments:
                arguments += scene.namespaces()
            runs[directory / f"{number}.json"] = [*COMMON, *arguments]
        with tracing_all(runs) as tracers:
            done = [(name, call) for name, actor in scene.actors.items() for call in actor.act()]
    return {case.name: Outcome(tracer, done) for case, tracer in zip(cases, tracers, strict=True)}


def check(case: Case, outcome: Outcome) -> None:
    """Compare what came with what was wanted; what did not come was filtered in the kernel."""
    tracer, done = outcome.tracer, outcome.done
    wanted = [identity_of_call(call) for name, call in done if case.wanted(name, call)]
    assert sorted(map(identity, tracer.events)) == sorted(wanted)
    rows = [tracer.ledger[kind] for kind in ("send", "recv")]
    assert sum(row["submitted"] for row in rows) == len(wanted)
    assert sum(row["filtered"] for row in rows) >= len(done) - len(wanted)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """The outcomes of CASES."""
    return run_cases(CASES, tmp_path_factory.mktemp("filters"))


@pytest.fixture(scope="module")
def combined(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """The outcomes of COMBINATIONS."""
    return run_cases(COMBINATIONS, tmp_path_factory.mktemp("combinations"))


@pytest.mark.native
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_filter(case: Case, outcomes: dict[str, Outcome]) -> None:
    """One filter alone, but for the namespaces that keep other traffic out."""
    check(case, outcomes[case.name])


@pytest.mark.parametrize("case", COMBINATIONS, ids=lambda case: case.name)
def test_combination(case: Case, combined: dict[str, Outcome]) -> None:
    """Options combine with and."""
    check(case, combined[case.name])


CLIENT, SERVER = {"10.77.0.1", "fd77::1"}, {"10.77.0.2", "fd77::2"}
IPV4, IPV6 = {"10.77.0.1", "10.77.0.2"}, {"fd77::1", "fd77::2"}

# Between two hosts: the arguments, and the local addresses that must be seen.
HOSTS = {
    "--host 10.77.0.2": IPV4,
    "--host 10.77.0.0/31": IPV4,
    "--host 10.77.0.4/30": set(),
    "--host fd77::/64": IPV6,
    "--host ::/0": IPV6,
    "--host 0.0.0.0/0": IPV4,
    "--remote-host 10.77.0.2": IPV4 & CLIENT,
    "--remote-host 10.77.0.2/31": IPV4 & CLIENT,
    "--remote-host fd77::1": IPV6 & SERVER,
    "--remote-host fd77::1 --remote-host 10.77.0.1": SERVER,
    "--remote-host fd77::1 --host 10.77.0.1": set(),
}


def talk(pair: Pair) -> None:
    """Send some bytes in both directions, by IPv4 and IPv6."""
    for family in (4, 6):
        client, server = pair.connection(family, 5000)
        with closing(client), closing(server):
            client.sendall(b"hello")
            server.sendall(server.recv(5))
            client.recv(5)
    pair.await_closed()


@pytest.fixture(scope="module")
def of_hosts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Event]]:
    """The events that HOSTS let pass."""
    directory = tmp_path_factory.mktemp("hosts")
    with joined() as pair:
        common = ["--kinds", "all", "--netns", pair.client.path, "--netns", pair.server.path]
        runs = {
            directory / f"{number}.json": [*RING, *common, *arguments.split()]
            for number, arguments in enumerate(HOSTS)
        }
        with tracing_all(runs) as tracers:
            talk(pair)
    return dict(zip(HOSTS, (tracer.events for tracer in tracers), strict=True))


@pytest.mark.native
@pytest.mark.parametrize("kind", ["send", "recv", "transmit"])
@pytest.mark.parametrize("arguments", HOSTS)
def test_host(arguments: str, kind: str, of_hosts: dict[str, list[Event]]) -> None:
    """Addresses and prefixes of either end, for segments as for messages."""
    seen = {event["local_ip"] for event in of_hosts[arguments] if event["kind"] == kind}
    assert seen == HOSTS[arguments]
