"""What a user writes to filter by, and what is refused."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from ipaddress import ip_network
from pathlib import Path

import pytest

from tcprism import filter_texts, filters
from tcprism.errors import UnknownTarget, UsageError

NOBODY = 2**22 + 1  # PID_MAX_LIMIT is 2**22
SELF = os.getpid()


def test_pids() -> None:
    assert filter_texts.parse_pids(str(SELF)) == (SELF,)
    assert filter_texts.parse_pids(f"1, 0{SELF} ,1") == (1, SELF, 1)


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "1,", "one", "1.0", "0x1", "1 2", "\u0661", "1" * 11]
)
def test_no_pid(text: str) -> None:
    with pytest.raises(UsageError, match="is not a process id") as caught:
        filter_texts.parse_pids(text)
    assert caught.type is UsageError


def test_a_process_that_is_not_there() -> None:
    with pytest.raises(UnknownTarget, match=f"no process {NOBODY}"):
        filter_texts.parse_pids(f"1,{NOBODY}")


def test_descendants_are_children_and_theirs() -> None:
    script = "sh -c 'sleep 1000 & echo $! $$; wait' & wait"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout
        family = {int(pid) for pid in process.stdout.readline().split()}
        found = filters.descendants([process.pid])
        for pid in family:
            os.kill(pid, signal.SIGKILL)
    assert found == family
    assert filters.descendants([process.pid]) == set()


@pytest.mark.parametrize("text", ["", "a\0b"])
def test_no_comm(text: str) -> None:
    with pytest.raises(UsageError, match="--comm"):
        filter_texts.parse_comm(text)


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("10.1.2.3", "10.1.2.3/32"),
        ("10.1.2.3/8", "10.0.0.0/8"),
        ("10.0.0.0/255.0.0.0", "10.0.0.0/8"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("2001:db8::5", "2001:db8::5/128"),
        ("fe80::1/10", "fe80::/10"),
        ("::/0", "::/0"),
        ("::ffff:10.1.2.3", "10.1.2.3/32"),
        ("::ffff:10.1.2.3/104", "10.0.0.0/8"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
        ("::ffff:0:0/95", "::fffe:0:0/95"),
    ],
)
def test_networks(text: str, network: str) -> None:
    assert filter_texts.parse_network(text) == ip_network(network)


@pytest.mark.parametrize(
    "text",
    ["", "localhost", "1", "10.0.0.256", "10.0.0.0/33", "::1/129", "10.0.0.0/-1", "1.2.3.4:80"],
)
def test_no_network(text: str) -> None:
    with pytest.raises(UsageError, match="is not an address or a prefix"):
        filter_texts.parse_network(text)


@pytest.mark.parametrize(
    ("text", "ranges"),
    [
        ("1", ((1, 1),)),
        ("65535", ((65535, 65535),)),
        ("8000-8100", ((8000, 8100),)),
        ("1-65535", ((1, 65535),)),
        ("80, 443 ,9-9", ((80, 80), (443, 443), (9, 9))),
    ],
)
def test_ports(text: str, ranges: tuple[tuple[int, int], ...]) -> None:
    assert filter_texts.parse_ports(text) == ranges


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "65536",
        "99999",
        "100000",
        "0-5",
        "2-1",
        "5-0",
        "1-",
        "-1",
        "1-2-3",
        "80,",
        "http",
        "1 -2",
    ],
)
def test_no_port(text: str) -> None:
    with pytest.raises(UsageError, match="is not a port or a range"):
        filter_texts.parse_ports(text)


@pytest.fixture
def cgroup_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that counts as a mounted cgroup v2, with one group in it and one impostor."""
    for path in ("root/web/one", "other"):
        (tmp_path / path).mkdir(parents=True)
    for path in ("root", "root/web", "root/web/one", "other"):
        (tmp_path / path / "cgroup.procs").touch()
    (tmp_path / "root/plain").mkdir()
    monkeypatch.setattr(filter_texts, "cgroup_roots", lambda: [tmp_path / "root"])
    return tmp_path / "root"


def test_cgroups_by_path_or_from_the_root(cgroup_root: Path) -> None:
    for text in (str(cgroup_root / "web/one"), "/web/one", "web/one", "web/../web/one/"):
        assert filter_texts.parse_cgroup(text).resolve() == cgroup_root / "web/one"
    assert filter_texts.parse_cgroup("/") == cgroup_root


@pytest.mark.parametrize("text", ["/nowhere", "plain", "../other", "web/cgroup.procs", "a" * 5000])
def test_no_cgroup(text: str, cgroup_root: Path) -> None:
    with pytest.raises(UnknownTarget, match="is not a cgroup v2 directory") as caught:
        filter_texts.parse_cgroup(text)
    assert str(cgroup_root) in str(caught.value)


def test_network_namespaces_by_path_or_pid() -> None:
    inode = int(re.findall(r"[0-9]+", os.readlink("/proc/self/ns/net"))[0])
    assert filter_texts.parse_netns("/proc/self/ns/net") == inode
    assert filter_texts.parse_netns(str(SELF)) == inode


@pytest.mark.parametrize(
    "text", ["", "/", "/proc/self/ns", "/etc/passwd", "no such name", str(NOBODY), "/proc/version"]
)
def test_no_network_namespace(text: str) -> None:
    with pytest.raises(UnknownTarget, match="is no network namespace"):
        filter_texts.parse_netns(text)


def test_another_kind_of_namespace_is_refused() -> None:
    with pytest.raises(UnknownTarget):
        filter_texts.parse_netns("/proc/self/ns/mnt")
