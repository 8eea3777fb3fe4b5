"""The compiled filters against truth tables, which follow from docs/filters.md alone."""

from __future__ import annotations

import ipaddress
import itertools
import os
import random
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tcprism.filters import Criteria, IpNetwork
from tcprism.kernel.object import BpfObject
from tests.support.bpf import run_raw_program

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Ports = tuple[tuple[int, int], ...]

_QUESTION = struct.Struct("=16s16sIHHII")  # struct question, programs/filters.bpf.c
COMBINATIONS = 60


@dataclass(frozen=True, slots=True)
class Connection:
    """One end of a connection, as the filters are told of it."""

    local: Address
    remote: Address
    local_port: int
    remote_port: int
    netns: int


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether a connection and the current thread pass."""

    connection: bool
    task: bool
    other_task: bool


def v4(text: str) -> ipaddress.IPv4Address:
    return ipaddress.IPv4Address(text)


def v6(text: str) -> ipaddress.IPv6Address:
    return ipaddress.IPv6Address(text)


def networks(*texts: str) -> tuple[IpNetwork, ...]:
    return tuple(map(ipaddress.ip_network, texts))


ENDS: tuple[tuple[Address, Address], ...] = (
    (v4("10.0.0.1"), v4("10.255.255.255")),
    (v4("11.0.0.0"), v4("10.0.0.1")),
    (v4("127.0.0.1"), v4("192.168.1.7")),
    (v4("0.0.0.0"), v4("255.255.255.255")),
    (v6("2001:db8::1"), v6("2001:db8:7fff::1")),
    (v6("::1"), v6("2001:db8:8000::1")),
    (v6("::a00:1"), v6("fe80::1")),  # as 10.0.0.1 in its last bits
)
PORTS = ((0, 80), (80, 0), (79, 81), (81, 443), (65535, 64), (63, 65534), (80, 443), (1024, 1024))
CONNECTIONS = [
    Connection(*ends, *ports, netns)
    for ends, ports in itertools.product(ENDS, PORTS)
    for netns in (4026531840, 7)
]

OPTIONS: dict[str, tuple[object, ...]] = {
    "ports": ((), ((80, 80),), ((63, 64), (443, 443)), ((0, 0),), ((65535, 65535),), ((81, 1023),)),
    "local_ports": ((), ((80, 80),), ((0, 65535),), ((1, 79), (65535, 65535))),
    "remote_ports": ((), ((443, 443),), ((64, 81), (65534, 65534))),
    "hosts": (
        (),
        networks("10.0.0.0/8"),
        networks("10.0.0.1/32"),
        networks("0.0.0.0/0"),
        networks("::/0"),
        networks("2001:db8::/32", "192.168.1.6/31"),
    ),
    "remote_hosts": (
        (),
        networks("10.0.0.1"),
        networks("2001:db8::/33"),
        networks("::1", "0.0.0.0/0"),
    ),
    "netns": ((), (7,), (7, 8), (1, 2)),
    "family": (0, 4, 6),
}


def in_ranges(ranges: Ports, *ports: int) -> bool:
    return not ranges or any(first <= port <= last for first, last in ranges for port in ports)


def in_networks(chosen: tuple[IpNetwork, ...], *addresses: Address) -> bool:
    return not chosen or any(address in network for network in chosen for address in addresses)


def should_pass(asked: Criteria, c: Connection) -> bool:
    """Values of one option are alternatives; options combine with and."""
    return (
        in_ranges(asked.ports, c.local_port, c.remote_port)
        and in_ranges(asked.local_ports, c.local_port)
        and in_ranges(asked.remote_ports, c.remote_port)
        and in_networks(asked.hosts, c.local, c.remote)
        and in_networks(asked.remote_hosts, c.remote)
        and (not asked.netns or c.netns in asked.netns)
        and asked.family in (0, c.remote.version)
    )


def mapped(address: Address) -> bytes:
    """Return 16 bytes: IPv4 as ::ffff:a.b.c.d."""
    return address.packed.rjust(6, b"\xff").rjust(16, b"\0")


@contextmanager
def filters(
    path: Path, asked: Criteria, self_pid: int = 0
) -> Iterator[Callable[[Connection], Answer]]:
    """Load the filters and give what asks them."""
    with BpfObject(path) as bpf:
        bpf.configure(asked.switches() | {"self_pid": self_pid}, {})
        bpf.load()
        for name, entries in asked.entries().items():
            for key, value in entries.items():
                bpf.put(name, key, value)
        for index, group in enumerate(asked.cgroups):
            descriptor = os.open(group, os.O_RDONLY | os.O_DIRECTORY)
            bpf.put("cgroups", struct.pack("=I", index), struct.pack("=I", descriptor))
            os.close(descriptor)
        program = bpf.program_fd("ask")

        def ask(c: Connection) -> Answer:
            numbers = (c.netns, c.local_port, c.remote_port, c.remote.version, os.getpid())
            question = _QUESTION.pack(mapped(c.local), mapped(c.remote), *numbers)
            answer = run_raw_program(program, question)
            assert 0 <= answer < 8
            return Answer(*(bool(answer >> bit & 1) for bit in range(3)))

        yield ask


def check_table(path: Path, asked: Criteria) -> tuple[int, int]:
    """Compare all connections; return how many passed and how many did not."""
    with filters(path, asked) as ask:
        answers = {c: ask(c).connection for c in CONNECTIONS}
    wrong = [c for c, answer in answers.items() if answer != should_pass(asked, c)]
    assert not wrong, asked
    passed = sum(answers.values())
    return passed, len(answers) - passed


@pytest.mark.parametrize("option", OPTIONS)
def test_each_value_of_an_option(option: str, compiled: Callable[[str], Path]) -> None:
    for value in OPTIONS[option]:
        given: dict[str, object] = {option: value}
        passed, turned_away = check_table(compiled("filters"), Criteria(**given))  # type: ignore[arg-type]
        assert passed or option == "netns"
        assert turned_away or not value or value == ((0, 65535),)


def test_options_combined(compiled: Callable[[str], Path]) -> None:
    chance = random.Random(20)
    passed = turned_away = 0
    for _ in range(COMBINATIONS):
        chosen = chance.sample(sorted(OPTIONS), chance.randint(2, 4))
        given = {name: chance.choice(OPTIONS[name][1:]) for name in chosen}
        some, others = check_table(compiled("filters"), Criteria(**given))  # type: ignore[arg-type]
        passed += some
        turned_away += others
    assert passed > COMBINATIONS
    assert turned_away > COMBINATIONS


@contextmanager
def cgroup(name: str) -> Iterator[Path]:
    """Make a cgroup v2 directory; remove it in the end."""
    mounts = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    root = next((fields[1] for fields in mounts if fields[2] == "cgroup2"), None)
    if root is None:
        pytest.skip("needs cgroup v2")
    path = Path(root, f"tcprism-{name}-{os.getpid()}")
    path.mkdir()
    try:
        yield path
    finally:
        path.rmdir()


@contextmanager
def named(name: str) -> Iterator[None]:
    """Give this thread a name."""
    file = Path("/proc/thread-self/comm")
    before = file.read_bytes().rstrip(b"\n")
    file.write_text(name)
    try:
        yield
    finally:
        file.write_bytes(before)


def check_processes(path: Path, expected: bool, **given: tuple[object, ...]) -> None:
    asked = Criteria(**given)  # type: ignore[arg-type]
    with filters(path, asked) as ask:
        answer = ask(CONNECTIONS[0])
    assert answer.task == answer.other_task == expected, asked


def test_processes(compiled: Callable[[str], Path]) -> None:
    """Each alone, and chosen, not chosen and not asked for in all combinations."""
    path, pid, name = compiled("filters"), os.getpid(), "fifteen letters"
    with cgroup("empty") as other, named(f"{name} and more"):
        root = other.parent
        ours = root / Path("/proc/self/cgroup").read_text().rpartition("::/")[2].strip()
        check_processes(path, True, pids=(1, pid))
        check_processes(path, True, comms=(f"{name} and more",))
        check_processes(path, False, comms=("x", name[:-1]))
        check_processes(path, True, cgroups=(ours,))
        check_processes(path, True, cgroups=(other, root))
        pids: dict[tuple[int, ...], bool] = {(): True, (pid,): True, (pid + 1, pid - 1): False}
        comms: dict[tuple[str, ...], bool] = {(): True, (name,): True, ("python3",): False}
        groups: dict[tuple[Path, ...], bool] = {(): True, (root,): True, (other,): False}
        for some, names, where in itertools.product(pids, comms, groups):
            expected = pids[some] and comms[names] and groups[where]
            check_processes(path, expected, pids=some, comms=names, cgroups=where)


def test_tcprism_leaves_itself_out(compiled: Callable[[str], Path]) -> None:
    asked = Criteria(pids=(os.getpid(),))
    with filters(compiled("filters"), asked, self_pid=os.getpid()) as ask:
        answer = ask(CONNECTIONS[0])
    assert (answer.connection, answer.task, answer.other_task) == (True, False, False)
