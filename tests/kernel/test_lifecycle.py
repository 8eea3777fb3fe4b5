"""How tcprism begins and ends, and that it leaves nothing behind."""

import gc
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tcprism.errors import KernelRefused
from tcprism.sources.request import Request
from tcprism.sources.tracing import Tracing
from tests.support import workload
from tests.support.bpf import has_object
from tests.support.netns import Netns
from tests.support.tracer import PATIENCE, TCPRISM, Tracer, bpf_of, tracing

pytestmark = pytest.mark.native

ONE_SEND = "import socket, sys; socket.create_connection(('127.0.0.1', 5000)).sendall(b'hello')"


@contextmanager
def listening(netns: Netns, port: int = 5000) -> Iterator[socket.socket]:
    """Have a server in the namespace that takes what comes and says nothing."""
    with closing(netns.socket()) as server:
        server.bind(("127.0.0.1", port))
        server.listen(64)
        yield server


def send(netns: Netns, data: bytes, times: int = 1) -> None:
    """Connect to the server and send something so many times, in as many calls."""
    with closing(netns.socket()) as client:
        client.connect(("127.0.0.1", 5000))
        for _ in range(times):
            client.sendall(data)


def await_events(tracer: Tracer, count: int) -> None:
    """Wait until so many events are in the output."""
    deadline = time.monotonic() + PATIENCE
    while tracer.output.read_bytes().count(b"\n") < count:
        assert time.monotonic() < deadline, "no events"
        time.sleep(0.005)


@pytest.fixture
def tracer(netns: Netns, tmp_path: Path) -> Iterator[Tracer]:
    """A tracer of sends that has its hooks on."""
    made = Tracer(tmp_path / "events.json", "--kinds", "send", "--netns", netns.path)
    try:
        made.await_attached()
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops(number: signal.Signals, tracer: Tracer, netns: Netns, soon: float) -> None:
    """What was sent before the signal is in the output, and the ledger on stderr."""
    with listening(netns):
        send(netns, b"the last words")
        began = time.monotonic()
        assert tracer.stop(number) == 0
    assert time.monotonic() - began < soon
    assert [event["payload_text"] for event in tracer.events] == ["the last words"]
    assert tracer.ledger["send"]["received"] == 1


def test_quiet_says_nothing() -> None:
    """Without --quiet there would be the start line and the ledger."""
    command = [TCPRISM, "trace", "--quiet", "--duration", "0.1", "--port", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_events_arrive_while_it_runs(tracer: Tracer, netns: Netns, soon: float) -> None:
    """An event is in the output without any reason to stop, within a fraction of a second."""
    with listening(netns):
        send(netns, b"now")
        sent = time.monotonic()
        await_events(tracer, 1)
    assert time.monotonic() - sent < soon
    assert tracer.stop() == 0


def test_count(netns: Netns, tmp_path: Path) -> None:
    """--count stops after so many events, though more came."""
    with listening(netns):
        tracer = Tracer(tmp_path / "events.json", "--netns", netns.path, "--count", "3")
        tracer.await_attached()
        send(netns, b"one of ten", times=10)
        assert tracer.wait() == 0
    assert len(tracer.events) == 3
    assert tracer.ledger


def test_duration(netns: Netns, tmp_path: Path, soon: float) -> None:
    """--duration stops by itself, not before its time."""
    started = time.monotonic()
    tracer = Tracer(tmp_path / "events.json", "--netns", netns.path, "--duration", "2")
    tracer.await_attached()
    began = time.monotonic()
    assert tracer.wait() == 0
    ended = time.monotonic()
    assert ended - started >= 2
    assert ended - began < 2 + soon


@pytest.mark.parametrize("status", [0, 7])
def test_command(status: int, netns: Netns, tmp_path: Path) -> None:
    """The command is traced from its first byte, with its children, and its status is ours."""
    script = f'python3 -c "{ONE_SEND}"; exit {status}'
    with listening(netns):
        arguments = ("--kinds", "send", "--netns", netns.path, "--", "sh", "-c", script)
        tracer = Tracer(tmp_path / "events.json", *arguments, prefix=tuple(netns.command()))
        tracer.await_attached()
        send(netns, b"somebody else")
        assert tracer.wait() == status
    assert [event["payload_text"] for event in tracer.events] == ["hello"]


def test_command_killed(netns: Netns, tmp_path: Path) -> None:
    """A command that a signal kills gives the status that a shell would give."""
    arguments = ("--netns", netns.path, "--", "sh", "-c", "kill -TERM $$")
    tracer = Tracer(tmp_path / "events.json", *arguments)
    assert tracer.wait() == 128 + signal.SIGTERM


def test_interrupting_a_command(netns: Netns, tmp_path: Path) -> None:
    """A signal to tcprism ends the command too."""
    pid_file = tmp_path / "pid"
    script = f"echo $$ > {pid_file}; exec sleep 1000"
    tracer = Tracer(tmp_path / "events.json", "--netns", netns.path, "--", "sh", "-c", script)
    tracer.await_attached()
    while not (pid_file.exists() and pid_file.read_text().endswith("\n")):
        os.sched_yield()
    tracer.stop(signal.SIGTERM)
    assert not Path("/proc", pid_file.read_text().strip()).exists()


def test_a_closed_pipe_stops(netns: Netns, soon: float) -> None:
    """`tcprism trace | head -1` ends as soon as head does, with status 0."""
    command = [TCPRISM, "trace", "--format", "json", "--kinds", "send", "--netns", netns.path]
    with (
        listening(netns),
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process,
    ):
        assert process.stdout
        assert process.stderr
        try:
            assert process.stderr.readline().startswith("tracing")
            send(netns, b"the first line")
            first = json.loads(process.stdout.readline())
            process.stdout.close()
            began = time.monotonic()
            assert process.wait(PATIENCE) == 0
            assert time.monotonic() - began < soon
            assert "Traceback" not in process.stderr.read()
        finally:
            process.kill()
    assert first["payload_text"] == "the first line"


def there(objects: dict[str, set[int]]) -> dict[str, set[int]]:
    """Return those BPF objects that the kernel has."""
    return {kind: {each for each in ids if has_object(kind, each)} for kind, ids in objects.items()}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_behind(number: signal.Signals, netns: Netns, tmp_path: Path) -> None:
    """No program, map or link of ours outlives the process, however it ends."""
    disciplines = netns.run("tc", "qdisc", "show")
    tracer = Tracer(tmp_path / "events.json", "--kinds", "all", "--netns", netns.path)
    tracer.await_attached()
    ours = bpf_of(tracer.process.pid)
    assert ours["prog"]
    assert ours["map"]
    assert there(ours) == ours
    tracer.stop(number)
    deadline = time.monotonic() + PATIENCE  # the kernel frees them after a grace period
    while any((left := there(ours)).values()):
        assert time.monotonic() < deadline, left
        time.sleep(0.01)
    assert netns.run("tc", "qdisc", "show") == disciplines


@pytest.mark.parametrize("include", [False, True])
def test_include_self(include: bool, netns: Netns, tmp_path: Path) -> None:
    """tcprism's own connections are left out unless asked for.

    Its standard output is a socket here, so that writing events is a send of its own.
    """
    port = 5001
    with listening(netns, port) as listener, listening(netns), closing(netns.socket()) as client:
        client.connect(("127.0.0.1", port))
        reader, _ = listener.accept()
        command = [TCPRISM, "trace", "--format", "json", "--kinds", "send",
                   "--netns", netns.path, *(["--include-self"] if include else [])]  # fmt: skip
        with (
            closing(reader),
            subprocess.Popen(
                command, stdout=client.fileno(), stderr=subprocess.PIPE, text=True
            ) as process,
        ):
            assert process.stderr
            assert process.stderr.readline().startswith("tracing")
            client.close()
            send(netns, b"not ours")
            lines = reader.makefile()
            first = json.loads(lines.readline())
            send(netns, b"not ours either")
            second = json.loads(lines.readline())
            process.send_signal(signal.SIGINT)
            for _ in lines:
                pass
            assert process.wait(PATIENCE) == 0
    assert first["payload_text"] == "not ours"
    assert (second["pid"] == process.pid) == include


def test_rings_come_merged_in_order(netns: Netns, tmp_path: Path) -> None:
    """Events of different rings and CPUs are in the order of their times."""
    arguments = ("--kinds", "all", "--payload", "16384", "--netns", netns.path)
    with tracing(tmp_path / "events.json", *arguments) as tracer:
        for variant in workload.VARIANTS:
            workload.run_calls(netns, variant, tmp_path / "truth")
    times = [event["ts_ns"] for event in tracer.events]
    assert len(times) > 500
    assert times == sorted(times)


@pytest.mark.native
def test_a_refused_start_leaves_no_descriptor_open() -> None:
    """This kernel has no kprobes, so that the request fails once the cgroup root is open."""
    gc.collect()  # what earlier tests have left, not meanwhile
    before = os.listdir("/proc/self/fd")
    with pytest.raises(KernelRefused), Tracing(Request(("send",), mechanism="kprobe")):
        pass
    assert len(os.listdir("/proc/self/fd")) == len(before)
