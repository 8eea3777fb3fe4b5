"""Who watches the traffic: tcprism with several options, tcpdump, bpftrace; each on its own CPU."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from benchmarks.bpf import Programs
from benchmarks.build import PROGRAMS, bpf_object
from benchmarks.load import put_load
from benchmarks.tracer import PINNED, tracing
from tests.support.netns import Netns
from tests.support.tracer import PATIENCE

Monitor = Callable[[Netns], AbstractContextManager[object]]

# bpftrace finds tracepoints in tracefs, which not every machine mounts; this mount is its own.
_WITH_TRACEFS = (
    "unshare",
    "--mount",
    "sh",
    "-c",
    'mountpoint -q /sys/kernel/tracing || mount -t tracefs none /sys/kernel/tracing; exec "$@"',
    "sh",
)


def tcprism(*arguments: str) -> Monitor:
    """Return tcprism with these arguments, writing text to a file."""
    return lambda netns: tracing(netns, *arguments)


@contextmanager
def tcpdump(netns: Netns) -> Iterator[None]:
    """Have tcpdump write the headers of every packet to a file that is thrown away."""
    with tempfile.NamedTemporaryFile() as output, tcpdump_to(netns, Path(output.name)):
        yield


@contextmanager
def tcpdump_to(netns: Netns, path: Path) -> Iterator[None]:
    """Have tcpdump write the headers of every packet to a file."""
    options = ("-i", "lo", "-s96", "-B65536", "-Z", "root", "-w", "/dev/stdout")
    command = netns.command(*PINNED, "tcpdump", *options)
    with (
        path.open("wb") as output,
        subprocess.Popen(command, stdout=output, stderr=subprocess.PIPE, text=True) as process,
    ):
        assert process.stderr
        while "listening" not in (said := process.stderr.readline()):
            if not said:
                raise RuntimeError("tcpdump did not start")
        try:
            yield
        finally:
            _interrupt(process)


def bpftrace(netns: Netns) -> AbstractContextManager[None]:
    """Have bpftrace print the fields of every message to a file."""
    script = (str(PROGRAMS / "messages.bt"), str(netns.inode))
    return bpftrace_script(script, PINNED, lambda: put_load(netns, "ping-pong", 0.01))


@contextmanager
def bpftrace_script(
    script: tuple[str, ...], prefix: tuple[str, ...], put: Callable[[], object]
) -> Iterator[None]:
    """Have bpftrace run a script that prints bytes of each event; `put` makes it print some."""
    command = [*_WITH_TRACEFS, *prefix, "bpftrace", "-B", "line", *script]
    with (
        tempfile.NamedTemporaryFile() as output,
        subprocess.Popen(command, stdout=output, stderr=subprocess.DEVNULL) as process,
    ):
        deadline = time.monotonic() + PATIENCE
        while " bytes" not in Path(output.name).read_text():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("bpftrace does not print")
            put()
        try:
            yield
        finally:
            _interrupt(process)


@contextmanager
def tcplife(_netns: Netns) -> Iterator[None]:
    """Have tcplife (libbpf-tools) print a line a connection, which nobody keeps."""
    command = [*_WITH_TRACEFS, *PINNED, "stdbuf", "-oL", "tcplife"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout
        if not process.stdout.readline():
            raise RuntimeError("tcplife does not print")
        reader = threading.Thread(target=process.stdout.read)
        reader.start()
        try:
            yield
        finally:
            process.send_signal(signal.SIGINT)
            reader.join(PATIENCE)


@contextmanager
def empty_programs(_netns: Netns) -> Iterator[None]:
    """Have programs that do nothing on the hooks of messages: what it takes to call them."""
    with Programs(bpf_object("empty")) as programs:
        programs.attach(("tracepoint_send", "tracepoint_recv"))
        yield


@contextmanager
def least_record(_netns: Netns) -> Iterator[None]:
    """Have programs that write the time, and no more, to a ring buffer: the least others do."""
    with Programs(bpf_object("ringbuf_baseline")) as programs:
        programs.attach()
        yield


def _interrupt(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGINT)
    try:
        process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()


EMPTY = "empty programs"
LEAST = "the time in a ring buffer"
FILTERED = "filtered out"
MESSAGES = "messages"
SEGMENTS = "segments"
BOTH_WAYS = "segments of both directions"
MESSAGES_AND_SEGMENTS = "messages and segments"
TCPDUMP = "tcpdump -s96 -B65536"
BPFTRACE = "bpftrace printf"
CONNECTIONS = "connections"


def monitors() -> dict[str, Monitor]:
    """Return the monitors that this machine has, by name."""
    ours: dict[str, Monitor] = {
        EMPTY: empty_programs,
        LEAST: least_record,
        FILTERED: tcprism("--port", "1"),
        MESSAGES: tcprism("--kinds", "send,recv", "--payload", "0"),
        "default": tcprism(),
        SEGMENTS: tcprism("--kinds", "transmit,retransmit"),
        BOTH_WAYS: tcprism("--kinds", "transmit,receive,retransmit"),
        "the same with options": tcprism("--kinds", "transmit,receive,retransmit", "--options"),
        MESSAGES_AND_SEGMENTS: tcprism(
            "--kinds", "send,recv,transmit,retransmit", "--payload", "0"
        ),
        CONNECTIONS: tcprism("--kinds", "connect,close"),
        "default, 256 bytes": tcprism("--payload", "256"),
    }
    peers = {
        "tcpdump": (TCPDUMP, tcpdump),
        "bpftrace": (BPFTRACE, bpftrace),
        "tcplife": ("tcplife", tcplife),
    }
    return ours | {name: monitor for tool, (name, monitor) in peers.items() if shutil.which(tool)}
