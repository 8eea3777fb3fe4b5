"""What `explain` is asked about, as people write it; errors name what they wrote."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path

import pytest

from tcprism.diagnosis.targets import find_target
from tcprism.errors import UsageError
from tcprism.filters import Criteria


def hosts(*texts: str) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    return tuple(map(ipaddress.ip_network, texts))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("192.0.2.1", Criteria(hosts=hosts("192.0.2.1"))),
        ("192.0.2.1:443", Criteria(hosts=hosts("192.0.2.1"), ports=((443, 443),))),
        ("2001:db8::7", Criteria(hosts=hosts("2001:db8::7"))),
        ("[2001:db8::7]", Criteria(hosts=hosts("2001:db8::7"))),
        ("[2001:db8::7]:443", Criteria(hosts=hosts("2001:db8::7"), ports=((443, 443),))),
        ("[::1:9702]", Criteria(hosts=hosts("::1:9702"))),
        ("2001:db8::1:face", Criteria(hosts=hosts("2001:db8::1:face"))),
        ("1:2:3:4:5:6:7:8", Criteria(hosts=hosts("1:2:3:4:5:6:7:8"))),
    ],
)
def test_targets(text: str, found: Criteria) -> None:
    assert find_target(text) == found


def test_a_process() -> None:
    own = os.getpid()
    assert find_target(str(own)) == Criteria(pids=(own,), follow=True)


def test_a_file_comes_first(tmp_path: Path) -> None:
    assert find_target(str(tmp_path)) == tmp_path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0", "there is no process 0; `ps -e` lists them"),
        ("65535123", "there is no process 65535123; `ps -e` lists them"),
        ("99999999999999999999", "there is no process 99999999999999999999; `ps -e` lists them"),
        (
            "::1:9702",
            "'::1:9702' may be an address, or one with a port: write [::1:9702] or [::1]:9702",
        ),
        ("192.0.2.1:0", "'192.0.2.1:0': 0 is not a port from 1 to 65535"),
        ("[::1]:99999", "'[::1]:99999': 99999 is not a port from 1 to 65535"),
    ],
)
def test_errors_name_what_was_written(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        find_target(text)
    assert str(caught.value) == said


@pytest.mark.parametrize("text", ["a" * 5000, "a..b"])
def test_a_text_that_can_name_neither_file_nor_host(text: str) -> None:
    with pytest.raises(UsageError, match="is no recording, process, thread name or host here"):
        find_target(text)


def test_a_number_that_is_no_process_may_be_a_port() -> None:
    """The one that the kernel gives to a process last of all: it goes on from its latest."""
    latest = int(Path("/proc/loadavg").read_text().split()[-1])
    ports = sorted(range(2, 65536), key=lambda number: ((latest - number) % 2**22, number))
    free = next(pid for pid in ports if not Path(f"/proc/{pid}").exists())
    with pytest.raises(UsageError) as caught:
        find_target(str(free))
    assert str(caught.value) == f"there is no process {free}; --port {free} chooses a port"
