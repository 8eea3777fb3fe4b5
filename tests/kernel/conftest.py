"""Fixtures of the tests that need a kernel."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from _pytest.runner import runtestprotocol

from tests.support import forked, tracer
from tests.support import netns as namespaces
from tests.support.tracer import TCPRISM
from tests.support.unseen import Unseen

SOON = 1.0  # seconds
REPEATS = 2  # where again something was not seen
ALL_NATIVE = "\npytestmark = pytest.mark.native"
HIDDEN = (
    "tcp_retransmit_skb",
    "tcp_retransmit_synack",
    "inet_sock_set_state",
    "kfree_skb",
    "net_dev_queue",
    "netif_receive_skb",
)

_module: list[Unseen] = []  # what was unseen since the first test of this module


def pytest_sessionstart() -> None:
    forked.prepare()


def pytest_sessionfinish() -> None:
    for watch in _module:  # of a module that was not finished
        watch.close()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out modules that are all native where such tests are not wanted.

    To read a module takes seconds in a virtual machine.
    """
    if config.option.markexpr != "not native" or collection_path.suffix != ".py":
        return None
    return ALL_NATIVE in collection_path.read_text() or None


def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool:
    """Repeat a test that failed where something happened that no BPF program can see here.

    Or where the kernel has skipped a program, as the ledger says: while another run of it on that
    CPU is interrupted or preempted, and for kprobes while one that it has preempted there is in
    bpf(2) (bpf_disable_instrumentation()). Fixtures are made anew for that.
    """
    if not _module:
        _module.append(Unseen("module", *HIDDEN))
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    reports = runtestprotocol(item, log=False, nextitem=nextitem)
    hidden = 0
    for _ in range(REPEATS):
        lines = [*_module[0].lines(), *tracer.skipped]
        failed = any(report.failed for report in reports) and isinstance(item, pytest.Function)
        if not failed or len(lines) <= hidden:
            break
        hidden = len(lines)
        terminal = item.config.pluginmanager.get_plugin("terminalreporter")
        assert terminal
        terminal.write_line(f"{item.nodeid} is repeated: no BPF program saw {lines[-1].strip()}")
        item.session._setupstate.teardown_exact(None)
        item._initrequest()  # type: ignore[attr-defined]
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    if nextitem is None or nextitem.path != item.path:
        _module.pop().close()
        tracer.skipped.clear()
    return True


@pytest.fixture(scope="module")
def soon() -> float:
    """A second, and more on a machine that is busy: what two starts take now."""
    began = time.monotonic()
    command = [TCPRISM, "trace", "--port", "9", "--duration", "0.01"]
    subprocess.run(command, check=True, capture_output=True)
    return SOON + 2 * (time.monotonic() - began)


@pytest.fixture
def netns() -> Iterator[namespaces.Netns]:
    """A network namespace with lo up."""
    with namespaces.namespace() as made:
        yield made


@pytest.fixture
def pair() -> Iterator[namespaces.Pair]:
    """Two network namespaces joined by a veth pair."""
    with namespaces.joined() as made:
        yield made
