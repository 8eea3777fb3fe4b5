"""What `tcprism serve` can no longer do once its hooks are on."""

from __future__ import annotations

import os
import pwd
import re
import socket
import subprocess
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tcprism.filters import Criteria
from tcprism.kernel import confinement
from tcprism.kernel.object import BpfObject, LoadError
from tcprism.sources.least_privilege import Needs, User, give_up
from tcprism.sources.request import Request
from tcprism.sources.snapshots import Snapshots
from tcprism.sources.tracing import Tracing
from tests.support.netns import Netns
from tests.support.serving import serving, statuses_of_threads

NOBODY = User("nobody", 65534, 65534)
ROOT = User("root", 0, 0)


@contextmanager
def _must_fail(*errors: type[BaseException]) -> Iterator[None]:
    try:
        yield
    except errors:
        return
    raise AssertionError("it was allowed")


def _load_programs() -> None:
    with BpfObject() as bpf:
        bpf.select(("tracepoint_state",))
        bpf.configure({}, {})
        bpf.load()


def _in_child(work: Callable[[], None]) -> str:
    """Do some work in a process of its own; return the traceback of its failure."""
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(ours)
            work()
        except BaseException:
            os.write(theirs, traceback.format_exc().encode())
        finally:
            os._exit(0)
    os.close(theirs)
    with open(ours) as said:
        failure = said.read()
    os.waitpid(child, 0)
    return failure


def _when_told(work: Callable[[], None]) -> Callable[[], None]:
    """Return what has a process of its own do some work, and waits for that."""
    told, tell = os.pipe()
    child = os.fork()
    if not child:
        os.read(told, 1)
        work()
        os._exit(0)

    def go() -> None:
        os.write(tell, b"1")
        os.waitpid(child, 0)

    return go


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A folder that everybody may write to."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o777)
        yield Path(name)


def _refused(folder: Path) -> None:
    """Check that nothing goes that is of no use to a run."""
    with _must_fail(LoadError, OSError):
        _load_programs()
    with _must_fail(PermissionError):
        socket.socket()
    if confinement.landlock_version():  # from 5.13 on; before, root still owns its files
        with _must_fail(PermissionError):
            Path("/etc/shadow").read_bytes()
        with _must_fail(PermissionError):
            (folder.parent / "elsewhere").write_text("")
    elif os.geteuid():
        with _must_fail(PermissionError):
            Path("/etc/shadow").read_bytes()
    with _must_fail(PermissionError):
        subprocess.run(["/bin/true"])
    with _must_fail(PermissionError):
        os.setuid(1)
    (folder / "recording").write_text("")
    (folder / "recording").unlink()


@pytest.mark.parametrize("user", [NOBODY, ROOT], ids=lambda user: user.name)
def test_privileges_are_gone_and_events_go_on(netns: Netns, open_place: Path, user: User) -> None:
    folder = open_place / "recordings"
    folder.mkdir()
    os.chown(folder, user.uid, user.gid)
    (listener := netns.socket()).bind(("127.0.0.1", 7000))
    listener.listen()
    client = netns.socket()

    def work() -> None:
        chosen = Criteria(netns=(netns.inode,))
        request = Request(("connect", "accept"), chosen, include_self=True, ring_size=1 << 16)
        go = _when_told(lambda: client.connect(("127.0.0.1", 7000)))
        with Tracing(request) as tracing, Snapshots(chosen) as snapshots:
            give_up(Needs(user, (folder,)), lambda: (tracing.ledger(), snapshots.take()))
            _refused(folder)
            go()
            tracing.stop()
            seen = 0
            while len(batch := tracing.drain()):
                seen += len(batch)
            assert seen == 2
            assert any(part.rows["local_port"].tolist() for part in snapshots.take().parts)
            assert all(entry.balances() for entry in tracing.ledger().entries)

    with closing(listener), closing(client):
        assert _in_child(work) == ""


@pytest.mark.native
def test_root_without_privileges_connects_to_the_collectors_port_alone(tmp_path: Path) -> None:
    """Root's own Unix sockets, such as Docker's, would give all privileges back."""
    with closing(socket.socket(socket.AF_UNIX)) as roots, closing(socket.socket()) as collector:
        roots.bind(str(tmp_path / "socket"))
        collector.bind(("127.0.0.1", 0))
        for listener in (roots, collector):
            listener.listen()
        port = collector.getsockname()[1]

        def work() -> None:
            give_up(Needs(ROOT, (tmp_path,), (port,)), lambda: None)
            socket.create_connection(("localhost", port)).close()
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close()  # as for DNS
            with _must_fail(PermissionError):
                socket.socket(socket.AF_UNIX).connect(str(tmp_path / "socket"))
            with _must_fail(PermissionError):  # which Landlock lets connect to any port
                socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_MPTCP)
            if confinement.landlock_version() >= 4:
                with _must_fail(PermissionError):
                    socket.create_connection(("127.0.0.1", port ^ 1))

        assert _in_child(work) == ""


@pytest.mark.native
def test_no_thread_of_the_command_has_kept_anything() -> None:
    with serving() as server:
        server.get()  # the threads that answer, too
        statuses = statuses_of_threads(server.process.pid)
    assert len(statuses) >= 3
    nobody = pwd.getpwnam("nobody").pw_uid
    for status in statuses:
        assert re.search(rf"^Uid:\t{nobody}\t{nobody}\t{nobody}\t{nobody}$", status, re.M)
        for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert re.search(rf"^{name}:\t0+$", status, re.M), status
        assert re.search(r"^NoNewPrivs:\t1$", status, re.M)
        assert re.search(r"^Seccomp:\t2$", status, re.M)
