"""tcprism in a pid namespace, as in a container: whose processes are meant, and which are shown."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.netns import Netns, Pair
from tests.support.tracer import TCPRISM, Tracer

pytestmark = pytest.mark.native  # the kernel side compares pids as always

CLIENT = """
import os, socket, sys
print(os.getpid(), flush=True)
sys.stdin.read(1)
with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as end:
    end.sendall(b"x")
"""


def child_of(pid: int) -> int:
    """Return the only child of a process."""
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text())


@pytest.fixture
def container() -> Iterator[tuple[str, ...]]:
    """A pid namespace with a /proc of its own; what runs a command in it."""
    command = ["unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", "echo; read end"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"\n"
        yield ("nsenter", "--pid", "--mount", "--target", str(child_of(process.pid)))


@contextmanager
def client(
    container: tuple[str, ...], netns: Netns, *where: str
) -> Iterator[tuple[int, int, subprocess.Popen[str]]]:
    """Have a client there that waits; yield its pid there, its pid here, and the process."""
    command = netns.command(*container, sys.executable, "-c", CLIENT, *where)
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        yield int(process.stdout.readline()), child_of(process.pid), process


def test_pids_are_those_of_the_namespace(
    container: tuple[str, ...], pair: Pair, tmp_path: Path
) -> None:
    """--pid takes the ids that `ps` shows there; events have the host's, and the start says so."""
    where = (pair.server_addresses[4], "5411")
    with (
        pair.server.socket() as listener,
        client(container, pair.client, *where) as (inside, outside, chosen),
        client(container, pair.client, *where) as (_, _, other),
    ):
        listener.bind((where[0], int(where[1])))
        listener.listen()
        assert inside != outside
        arguments = ("--kinds", "connect,send", "--pid", str(inside), "--count", "2")
        tracer = Tracer(tmp_path / "events", *arguments, prefix=container)
        try:
            tracer.await_attached()
            for process in (other, chosen):
                process.communicate("g")
                assert process.returncode == 0
            assert tracer.wait() == 0
        finally:
            tracer.close()
    assert {(event["kind"], event["pid"]) for event in tracer.events} == {
        ("connect", outside),
        ("send", outside),
    }
    assert f"pids are shown as the host has them; {inside} here is {outside}" in tracer.stderr


COMMAND = """
import socket
with socket.socket() as end:
    end.bind(("127.0.0.1", 0))
    print(end.getsockname()[1])
    end.connect_ex(("127.0.0.1", 5412))
"""


def test_a_command_in_the_namespace(
    container: tuple[str, ...], netns: Netns, tmp_path: Path
) -> None:
    """A command is traced there as anywhere."""
    output = tmp_path / "events"
    arguments = ("--kinds", "connect", "--format", "json", "--output", str(output))
    command = (TCPRISM, "trace", *arguments, "--", sys.executable, "-c", COMMAND)
    port = netns.run(*container, *command)
    (event,) = map(json.loads, output.read_text().splitlines())
    assert (event["local_port"], event["remote_port"]) == (int(port), 5412)
