"""Recording real traffic, and what replay, export and Python make of it."""

from __future__ import annotations

import asyncio
import fcntl
import io
import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Self

import pytest

import tcprism
from examples import monitor as monitor_example
from examples import watch_async
from tcprism.errors import RecordingError
from tcprism.events import KINDS, Batch
from tcprism.events.facts import Facts
from tcprism.filters import Criteria
from tcprism.recording.writer import Writer
from tcprism.sinks import Sink
from tcprism.sinks.json_lines import JsonLines
from tcprism.sinks.pcapng import Pcapng
from tcprism.sinks.text import Text
from tcprism.sources.request import Request
from tcprism.sources.tracing import Tracing
from tcprism.stages import through
from tests.support.conversation import lossy, orderly, ping_pong, receive
from tests.support.netns import Netns, Pair
from tests.support.tracer import PATIENCE, TCPRISM, note_skipped, parse_ledger
from tests.support.tshark import fields, marked, wrong

pytestmark = pytest.mark.native

PORT = 5700
UPLOAD = 300_000
ROOM = 4_000_000  # bytes that may be unread, with what the kernel needs for them

watching = partial(tcprism.Monitor, include_self=True)  # this process is who talks


class Recorder:
    """One run of `tcprism record`, with its hooks on."""

    def __init__(self, output: str, *arguments: str, **options: Any) -> None:
        command = [TCPRISM, "record", "-v", "-o", output, *arguments]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options)
        assert self.process.stderr
        first = self.process.stderr.readline()
        if not first.startswith("tracing"):
            raise AssertionError(first + self.process.stderr.read())

    def stop(self, number: int = signal.SIGINT) -> list[str]:
        """End it; return what it said."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> list[str]:
        """Wait for its end; return what it said."""
        assert self.process.stderr
        try:
            said: list[str] = self.process.stderr.read().splitlines()
            self.process.wait(PATIENCE)
        finally:
            self.process.kill()
            self.process.wait()
            self.process.stderr.close()
        with suppress(AssertionError):  # it may have ended before there was a ledger
            missed = {kind: row["missed"] for kind, row in parse_ledger(said).items()}
            note_skipped("a recording", missed)
        return said


def talk(netns: Netns, *words: bytes) -> None:
    """Have each word sent and received on a new connection."""
    with closing(netns.socket()) as listener, closing(netns.socket()) as client:
        listener.bind(("127.0.0.1", PORT))
        listener.listen()
        client.connect(("127.0.0.1", PORT))
        server, _ = listener.accept()
        with closing(server):
            for word in words:
                client.sendall(word)
                assert server.recv(1 << 16) == word
                server.sendall(word[::-1])
                assert client.recv(1 << 16) == word[::-1]


def await_size(path: Path, size: int) -> None:
    """Wait until a file has grown."""
    deadline = time.monotonic() + PATIENCE
    while not path.exists() or path.stat().st_size <= size:
        assert time.monotonic() < deadline, "nothing is written"
        time.sleep(0.01)


def sent_words(path: Path | str) -> list[bytes | None]:
    return [event.payload for event in tcprism.open(path, kinds={"send"})]


def await_words(path: Path, words: list[bytes]) -> None:
    """Wait until these have been written; what comes before them may be written in pieces."""
    deadline = time.monotonic() + PATIENCE
    while True:
        with suppress(RecordingError):
            if sent_words(path) == words:
                return
        assert time.monotonic() < deadline, "it is not written"
        time.sleep(0.01)


WORDS = [b"hello", b"GET / HTTP/1.1\r\n\r\n", bytes(range(256)), b"x" * 5000]
SENT = [payload[:2000] for word in WORDS for payload in (word, word[::-1])]


def test_record_and_replay(netns: Netns, tmp_path: Path) -> None:
    """Every byte that the test sent is in the recording, and the ledger too."""
    path = tmp_path / "run.tcpr"
    recorder = Recorder(str(path), "--netns", netns.path, "--payload", "2000")
    talk(netns, *WORDS)
    said = recorder.stop()
    assert recorder.process.returncode == 0
    recording = tcprism.open(path)
    events = list(recording)
    assert [event.payload for event in events if event.kind == "send"] == SENT
    assert recording.trouble == []
    assert recording.facts.payload == 2000
    assert recording.facts.filters == {"netns": (netns.path,)}
    assert recording.facts.kernel == os.uname().release
    assert "message" in recording.facts.hooks
    ledger = parse_ledger(said)
    for entry in recording.ledger.entries:
        assert entry.received == entry.submitted == ledger[entry.kind]["received"]
    assert {event.netns for event in events} == {netns.inode}


def test_a_command(netns: Netns, tmp_path: Path) -> None:
    """It is recorded from its first byte and gives the exit status."""
    path = tmp_path / "run.tcpr"
    script = "import socket, sys; socket.socket().connect_ex(('127.0.0.1', 1)); sys.exit(3)"
    arguments = ("--kinds", "connect", "--", *netns.command(sys.executable, "-c", script))
    recorder = Recorder(str(path), *arguments)
    recorder.wait()
    assert recorder.process.returncode == 3
    (event,) = tcprism.open(path)
    assert (event.remote_port, event.error) == (1, "ECONNREFUSED")


def test_killed(netns: Netns, tmp_path: Path) -> None:
    """After SIGKILL there is what was written by then, and replay says what is missing."""
    path = tmp_path / "run.tcpr"
    recorder = Recorder(str(path), "--netns", netns.path, "--kinds", "send")
    await_size(path, 0)
    talk(netns, b"before")
    await_words(path, [b"before", b"erofeb"])
    recorder.stop(signal.SIGKILL)
    assert sent_words(path) == [b"before", b"erofeb"]
    replay = [TCPRISM, "replay", str(path), "--format", "json"]
    done = subprocess.run(replay, capture_output=True, text=True)
    assert done.returncode == 0
    assert [json.loads(line)["payload_text"] for line in done.stdout.splitlines()] == [
        "before",
        "erofeb",
    ]
    assert "ends without its last batch" in done.stderr


def test_the_terminal_goes_away(netns: Netns, tmp_path: Path) -> None:
    """The recording gets its end and the command is ended, though nobody can be told."""
    path, ours = tmp_path / "run.tcpr", tmp_path / "pid"
    terminal, theirs = pty.openpty()
    script = f"echo $$ > {ours}; exec sleep 1000"
    process = subprocess.Popen(
        [TCPRISM, "record", "-o", str(path), "--netns", netns.path, "--", "sh", "-c", script],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(theirs)
    await_size(ours, 0)
    command = os.pidfd_open(int(ours.read_text()))
    os.close(terminal)
    assert process.wait(PATIENCE) == 128 + signal.SIGTERM  # as the command ended
    assert select.select([command], [], [], 0)[0]
    os.close(command)
    recording = tcprism.open(path)
    list(recording)
    assert recording.trouble == []
    assert recording.ledger.entries


def test_a_full_disk(netns: Netns, tmp_path: Path) -> None:
    """One sentence, status 1; what was written before can be read."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], check=True)
    try:
        path = disk / "run.tcpr"
        recorder = Recorder(str(path), "--netns", netns.path, "--kinds", "send",
                            "--payload", "16384")  # fmt: skip
        await_size(path, 0)
        talk(netns, b"before")
        await_words(path, [b"before", b"erofeb"])
        talk(netns, *(os.urandom(16_000) for _ in range(10)))
        said = recorder.wait()
        assert recorder.process.returncode == 1
        assert "tcprism: cannot write the output: No space left on device" in said
        assert sent_words(path)[:2] == [b"before", b"erofeb"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_through_a_pipe(netns: Netns) -> None:
    """record -o - | replay -: events come while it runs."""
    recorder = Recorder("-", "--netns", netns.path, "--kinds", "send", stdout=subprocess.PIPE)
    replay = subprocess.Popen(
        [TCPRISM, "replay", "-", "--format", "json"],
        stdin=recorder.process.stdout,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with replay:
        assert replay.stdout
        assert recorder.process.stdout
        talk(netns, b"through a pipe")
        assert json.loads(replay.stdout.readline())["payload_text"] == "through a pipe"
        recorder.stop()
        assert json.loads(replay.stdout.readline())["payload_text"] == "epip a hguorht"
        assert replay.wait(PATIENCE) == 0
        recorder.process.stdout.close()


def test_it_stops_when_it_is_large_enough(netns: Netns, tmp_path: Path) -> None:
    path = tmp_path / "run.tcpr"
    recorder = Recorder(str(path), "--netns", netns.path, "--payload", "4000",
                        "--max-size", "50K")  # fmt: skip
    talk(netns, *(os.urandom(4000) for _ in range(20)))
    recorder.wait()
    assert recorder.process.returncode == 0
    assert path.stat().st_size >= 50 << 10
    assert tcprism.open(path).facts.payload == 4000


def upload(client: socket.socket, server: socket.socket) -> None:
    """Send some hundred packets in one direction."""
    receiver = threading.Thread(target=receive, args=(server, UPLOAD))
    receiver.start()
    client.sendall(b"b" * UPLOAD)
    receiver.join()


@pytest.fixture
def lossy_run(pair: Pair) -> Iterator[tuple[list[Batch], Tracing]]:
    """Batches of two namespaces in which packets got lost, and the monitor that saw them."""
    only = Criteria(netns=(pair.client.inode, pair.server.inode))
    batches: list[Batch] = []
    # Its reader may come late: then the window must not be closed, which tshark remarks on.
    pair.server.configure("net/ipv4/tcp_rmem", f"4096 {ROOM} {ROOM}")
    with Tracing(Request(KINDS, only, 256, include_self=True)) as monitor:
        for family in (4, 6):
            orderly(pair, family, 5700 + family, ping_pong, 20)
            lossy(pair, family, 5710 + family, upload, 50)
            batches.append(through(monitor.stages, monitor.read()))
        pair.await_closed()
        monitor.stop()
        while len(batch := monitor.drain()):
            batches.append(through(monitor.stages, batch))
        yield batches, monitor


def shown(batches: Iterator[Batch] | list[Batch]) -> dict[str, bytes]:
    """Return what each format makes of batches."""
    files = {name: io.BytesIO() for name in ("text", "hex", "none", "json")}
    sinks: list[Sink] = [
        Text(files["text"], color=True),
        Text(files["hex"], color=False, style="hex"),
        Text(files["none"], color=False, style="none"),
        JsonLines(files["json"]),
    ]
    for batch in batches:
        for sink in sinks:
            sink.write(batch)
    return {name: file.getvalue() for name, file in files.items()}


def test_replay_is_what_trace_shows_and_packets_are_what_happened(
    lossy_run: tuple[list[Batch], Tracing], tmp_path: Path
) -> None:
    """Byte for byte, with causes, joins and owners; tshark marks the true retransmissions only."""
    batches, monitor = lossy_run
    path = tmp_path / "run.tcpr"
    with path.open("wb") as file:
        writer = Writer(file, Facts(KINDS))
        for batch in batches:
            writer.write(batch)
        writer.note(monitor.ledger())
        writer.close()
    live = shown(batches)
    assert shown(tcprism.open(path).batches()) == live
    assert b'"cause":"' in live["json"]
    assert live["json"].count(b"\n") == sum(map(len, batches))
    packets = capture(path, "segments")
    assert wrong(packets) == []
    again = [event for event in tcprism.open(path, kinds={"retransmit"}) if not event.error]
    commented = fields(packets, "frame.number", only='frame.comment contains "cause "')
    assert len(commented) == sum(event.segs or 0 for event in again) > 0
    assert set(marked(packets)) - acknowledgements(packets) == {n for (n,) in commented}
    spoken = capture(path, "messages")
    assert wrong(spoken) == []
    assert marked(spoken) == []


def acknowledgements(packets: Path) -> set[str]:
    """Return the packets that tshark remarks on because they answer a loss, as they should."""
    only = "tcp.analysis.duplicate_ack || tcp.analysis.window_update"
    return {number for (number,) in fields(packets, "frame.number", only=only)}


def capture(path: Path, source: Any) -> Path:
    """Export a recording to pcapng."""
    target = path.with_suffix(f".{source}.pcapng")
    with target.open("wb") as file:
        sink = Pcapng(file, source)
        for batch in tcprism.open(path).batches():
            sink.write(batch)
        sink.close()
    return target


def test_trace_writes_every_format(netns: Netns, tmp_path: Path) -> None:
    """pcapng at once, without a recording in between."""
    path = tmp_path / "run.pcapng"
    command = [TCPRISM, "trace", "--netns", netns.path, "--format", "pcapng", "-o", str(path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        assert process.stderr.readline().startswith("tracing")
        talk(netns, b"GET / HTTP/1.1\r\n\r\n")
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0
    assert wrong(path) == []
    assert len(fields(path, "tcp.payload", only="tcp.payload")) == 2


def test_monitor(netns: Netns) -> None:
    """Events, one after the other, while it happens."""
    only = tcprism.Filter(netns=netns.path)
    with watching({"send"}, only, payload=16) as monitor:
        speaker = threading.Thread(target=talk, args=(netns, b"one", b"two"))
        speaker.start()
        words = [event.payload for event in islice(monitor, 4)]
        speaker.join()
    assert words == [b"one", b"eno", b"two", b"owt"]
    assert monitor.ledger().lost == 0
    (entry,) = monitor.ledger().entries
    assert entry.balances()
    assert entry.received == 4


def test_stop_ends_the_iteration_and_loses_nothing(netns: Netns) -> None:
    with watching({"send"}, tcprism.Filter(netns=netns.path)) as monitor:
        talk(netns, b"last")
        monitor.stop()
        assert [event.payload for event in monitor] == [b"last", b"tsal"]


def test_batches_go_through_stages(netns: Netns) -> None:
    """Columns are NumPy; a stage sees each batch first."""
    seen: list[int] = []

    def count(batch: Batch) -> Batch:
        seen.append(len(batch))
        return batch

    only = tcprism.Filter(netns=netns.path)
    with watching({"send", "recv"}, only, stages=[count]) as monitor:
        talk(netns, b"four", b"more")
        monitor.stop()
        sizes = [batch["bytes"].sum() for batch in monitor.batches()]
    assert sum(sizes) == 32
    assert sum(seen) == 8


def test_async(netns: Netns) -> None:
    """`async for`, for events and for batches, while something else runs in the loop."""

    async def watch() -> list[bytes | None]:
        only = tcprism.Filter(netns=netns.path)
        with watching({"send"}, only) as monitor:
            await asyncio.to_thread(talk, netns, b"async")
            async for batch in monitor.batches():
                assert len(batch)
                break
            await asyncio.to_thread(talk, netns, b"again")
            monitor.stop()
            return [event.payload async for event in monitor]

    words = asyncio.run(watch())
    assert words[-2:] == [b"again", b"niaga"]


def test_the_monitor_example(
    netns: Netns, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It runs as it is, but looks at our own namespace only."""
    monkeypatch.setattr(tcprism, "Monitor", listening(netns, talk, netns, b"example"))
    monitor_example.main(0.5)
    assert "14 " in capsys.readouterr().out


def test_the_example_in_asyncio(
    netns: Netns, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first packet that is dropped is printed, and ends it."""
    with closing(netns.socket()) as client:
        client.setblocking(False)
        netns.run("nft", DROP_ALL)
        connect = partial(client.connect_ex, ("127.0.0.1", 9))
        monkeypatch.setattr(tcprism, "Monitor", listening(netns, connect))
        asyncio.run(asyncio.wait_for(watch_async.watch(1), PATIENCE))
    assert "127.0.0.1" in capsys.readouterr().out


def listening(netns: Netns, act: Callable[..., object], *arguments: object) -> Any:
    """Return a Monitor of a namespace that has something happen as soon as its hooks are on."""

    class Listening(tcprism.Monitor):
        def __enter__(self) -> Self:
            super().__enter__()
            act(*arguments)
            return self

    return partial(Listening, filters=tcprism.Filter(netns=netns.path), include_self=True)


DROP_ALL = (
    "add table inet closed; "
    "add chain inet closed input { type filter hook input priority 0; policy drop; }"
)
