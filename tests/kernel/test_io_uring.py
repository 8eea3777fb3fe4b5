"""Sends by io_uring: only the hook at their beginning has the bytes, and it comes when needed."""

import base64
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import hooks, workload
from tests.support.netns import Netns
from tests.support.tracer import PATIENCE, Tracer, bpf_of, tracing

pytestmark = pytest.mark.native  # of the machines' kernels only the newest has that hook

RING = """
import ctypes, sys
parameters = ctypes.create_string_buffer(120)  # struct io_uring_params
assert ctypes.CDLL(None).syscall(425, 8, parameters) >= 0, "io_uring_setup"
print("made", flush=True)
sys.stdin.read()
"""
HOOK = "tcp_sendmsg_locked"
ARGUMENTS = ("--hooks", "tracepoint", "--kinds", "send")


@pytest.fixture(autouse=True)
def hook() -> None:
    """The kernel has the hook: 6.16 and later."""
    if not hooks.has_tracepoint(HOOK):
        pytest.skip("this kernel does not tell of the beginning of a send")


@contextmanager
def somebody_uses_io_uring() -> Iterator[None]:
    """Have a process that has an io_uring, and does nothing with it."""
    command = [sys.executable, "-c", RING]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"made\n"
        try:
            yield
        finally:
            process.communicate()


def is_on(tracepoint: str, tracer: Tracer) -> bool:
    """Tell whether a tracer has a program at a tracepoint."""
    for link in bpf_of(tracer.process.pid)["link"]:  # one by one: other programs' come and go
        told = subprocess.run(
            ["bpftool", "-j", "link", "show", "id", str(link)], capture_output=True, text=True
        )
        if not told.returncode and json.loads(told.stdout).get("tp_name") == tracepoint:
            return True
    return False


def check(tracer: Tracer, calls: list[workload.Call]) -> None:
    """Each send is there with its bytes."""
    sent = [call.data for call in calls if call.kind == "send"]
    assert len(sent) == 3
    assert [base64.b64decode(event["payload"]) for event in tracer.events] == [
        data[:64] for data in sent
    ]
    assert {event["payload_unavailable"] for event in tracer.events} == {None}


def test_used_before(netns: Netns, tmp_path: Path) -> None:
    """Who has an io_uring at the start is found."""
    arguments = ("--netns", netns.path, *ARGUMENTS)
    with somebody_uses_io_uring(), tracing(tmp_path / "events", *arguments) as tracer:
        calls = workload.run_calls(netns, "ipv4", tmp_path / "truth", "io_uring")
    check(tracer, calls)


def test_used_from_now_on(netns: Netns, tmp_path: Path) -> None:
    """Who makes one later brings the hook along."""
    arguments = ("--netns", netns.path, *ARGUMENTS)
    with tracing(tmp_path / "events", *arguments) as tracer, somebody_uses_io_uring():
        deadline = time.monotonic() + PATIENCE
        while not is_on(HOOK, tracer) and time.monotonic() < deadline:
            time.sleep(0.01)
        calls = workload.run_calls(netns, "ipv4", tmp_path / "truth", "io_uring")
    check(tracer, calls)


def test_used_by_the_command(netns: Netns, tmp_path: Path) -> None:
    """A command is traced from its first byte, whatever it sends with."""
    command = workload.command("ipv4", tmp_path / "truth", "io_uring")
    prefix = tuple(netns.command())
    tracer = Tracer(tmp_path / "events", *ARGUMENTS, "--", *command, prefix=prefix)
    try:
        assert tracer.wait() == 0
    finally:
        tracer.close()
    check(tracer, workload.read_truth(tmp_path / "truth"))
