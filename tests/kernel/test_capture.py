"""A capture of both directions, against tcpdump's of the same run, both as tshark reads them."""

import base64
import os
import random
import re
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tcprism.events._wire import PAYLOAD_MAX
from tcprism.sources.request import SEGMENT_KINDS
from tests.support.capture import Packet, capturing
from tests.support.conversation import hang_up, ping_pong, receive
from tests.support.netns import Netns, joined
from tests.support.tracer import TCPRISM, Event, tracing, tracing_all
from tests.support.tshark import fields, reading, tshark, wrong
from tests.support.wire import Rule, Wire, wired

DELAY = 0.02  # seconds, each way: tshark calls what comes sooner again a case of disorder
BYTES = 60_000
SENT = random.Random(17).randbytes(BYTES)
LOST = (5, 20)  # data segments to the server
LATE = (12,)
SMALL_BUFFER = 4096
FIRST_CLIENT = 32_768  # the lowest port that the kernel chooses
PACKET = (
    *("ip.src", "ipv6.src", "tcp.srcport", "tcp.dstport", "tcp.seq_raw", "tcp.ack_raw", "tcp.len"),
    *("tcp.flags", "tcp.window_size_value", "tcp.options", "ip.dsfield.ecn"),
)
ANALYSIS = (
    *("tcp.window_size", "tcp.analysis.retransmission", "tcp.analysis.fast_retransmission"),
    *("tcp.analysis.spurious_retransmission", "tcp.analysis.out_of_order"),
    *("tcp.analysis.lost_segment", "tcp.analysis.duplicate_ack", "tcp.analysis.window_update"),
    *("tcp.analysis.zero_window", "tcp.analysis.duplicate_ack_num", "tcp.completeness"),
)
TELLING = {
    name: [f"tcp.analysis.{name}"]
    for name in ("retransmission", "duplicate_ack", "zero_window", "window_update")
}


def disturbing() -> Rule:
    """Lose some data to the server, hold some of it up; all takes its time."""
    known: list[int] = []

    def rule(packet: Packet, to_server: bool) -> float | None:
        if not to_server or not packet.payload or packet.seq in known:
            return DELAY
        known.append(packet.seq)
        place = len(known) - 1
        return None if place in LOST else DELAY * (3 if place in LATE else 1)

    return rule


def disturbed(wire: Wire, family: int) -> None:
    """Talk while segments are lost and come late."""
    client, server = wire.connection(family, 5900 + family)
    with closing(client), closing(server):
        wire.rule = disturbing()
        client.sendall(SENT)
        receive(server, BYTES)
        wire.rule = lambda _packet, _to_server: DELAY
        ping_pong(client, server, 2)
        hang_up(client, server)


def stopped(wire: Wire) -> None:
    """Have the server not read until its window is closed."""
    client, server = wire.connection(4, 5908, SMALL_BUFFER)
    with closing(client), closing(server):
        size = 4 * SMALL_BUFFER
        sender = threading.Thread(target=client.sendall, args=(b"s" * size,))
        sender.start()
        while not any(p.source_port == 5908 and not p.window for p in wire.passed):
            os.sched_yield()
        receive(server, size)
        sender.join()
        hang_up(client, server)


@dataclass
class Run:
    """Our capture, tcpdump's, and our events."""

    ours: Path
    theirs: Path
    events: list[Event]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One run of everything at a client."""
    directory = tmp_path_factory.mktemp("capture")
    made = Run(directory / "ours.pcapng", directory / "theirs.pcap", [])
    events = directory / "events"
    with wired() as wire:
        wire.rule = lambda _packet, _to_server: DELAY
        common = ["--netns", wire.client.path, "--payload", str(PAYLOAD_MAX)]
        chosen = [*common, "--format", "pcapng"]
        arguments = [*common, "--options", "--kinds", ",".join(SEGMENT_KINDS)]
        with (
            tracing_all({made.ours: chosen, events: arguments}) as tracers,
            capturing(wire.client, "veth0", made.theirs, "10.77.0.2"),
        ):
            for family in (4, 6):
                disturbed(wire, family)
            stopped(wire)
            wire.await_closed()
        made.events = tracers[1].events
        assert not tracers[0].failure, tracers[0].failure
    return made


def rows(path: Path, *names: str) -> Counter[tuple[str, ...]]:
    return Counter(tuple(row) for row in fields(path, *names, only="tcp"))


def test_the_same_packets(run: Run) -> None:
    """Headers and options of both directions are as on the wire."""
    assert rows(run.ours, *PACKET) == rows(run.theirs, *PACKET)
    assert rows(run.ours, "tcp.srcport").total() > 100
    assert wrong(run.ours) == []


def test_the_same_payload(run: Run) -> None:
    """Each packet's bytes are those on the wire; a retransmission comes without."""
    names = (*PACKET[:7], "tcp.payload", "frame.comment")
    ours = fields(run.ours, *names, only="tcp.len > 0")
    theirs = {(*row[:6], row[7]) for row in fields(run.theirs, *names, only="tcp.len > 0")}
    without = [row for row in ours if not row[7]]
    assert {(*row[:6], row[7]) for row in ours if row[7]} <= theirs
    assert all("cause" in row[8] for row in without)
    assert 0 < len(without) < len(ours) / 4


@pytest.mark.parametrize("family", [4, 6])
def test_payload_is_what_the_client_sent(run: Run, family: int) -> None:
    """By sequence number, from the SYN on; it is all there."""
    sent = [e for e in run.events if e["remote_port"] == 5900 + family and e["kind"] == "transmit"]
    (syn,) = [event for event in sent if event["flags"] == "SYN"]
    data = {
        (event["seq"] - syn["end_seq"]) % 2**32: base64.b64decode(event["payload"])
        for event in sent
        if event["bytes"]
    }
    assert b"".join(data[place] for place in sorted(data))[:BYTES] == SENT
    assert not any(event["payload_truncated"] for event in sent)


def test_wireshark_finds_the_same(run: Run) -> None:
    """Retransmissions, duplicate ACKs, scaled windows, closed windows and their end."""
    names = (*PACKET, *ANALYSIS)
    assert rows(run.ours, *names) == rows(run.theirs, *names)
    for name, found in TELLING.items():
        assert fields(run.theirs, "frame.number", only=found[0]), name


def test_round_trips_can_be_worked_out(run: Run) -> None:
    """Each ACK that tshark times in one file it times in the other, and none is too short."""
    found = [
        {
            (row[0], row[1], row[2]): float(row[3])
            for row in fields(path, "tcp.srcport", "tcp.ack_raw", "tcp.dstport",
                              "tcp.analysis.ack_rtt", only="tcp.analysis.ack_rtt")
        }
        for path in (run.ours, run.theirs)
    ]  # fmt: skip
    assert found[0].keys() == found[1].keys()
    far = [rtt for (port, _, _), rtt in found[0].items() if int(port) < FIRST_CLIENT]
    assert min(far) >= 2 * DELAY


SYN_OPTIONS = {
    "max_segment_size": "tcp.options.mss_val",
    "window_scale": "tcp.options.wscale.shift",
    "ts_val": "tcp.options.timestamp.tsval",
    "ts_ecr": "tcp.options.timestamp.tsecr",
}


def test_columns_of_options(run: Run) -> None:
    """As tshark reads them off tcpdump's capture; SACK ranges from their edges."""
    names = ("tcp.srcport", "tcp.seq_raw", "tcp.ack_raw", *SYN_OPTIONS.values())
    edges = ("tcp.options.sack_le", "tcp.options.sack_re", "tcp.options.sack_perm")
    wanted = (word for name in (*names, *edges) for word in ("-e", name))
    absolute = ("-o", "tcp.relative_sequence_numbers:FALSE", "-Y", "tcp", "-T", "fields")
    printed = tshark(run.theirs, *absolute, *wanted)
    theirs = Counter(tuple(line.split("\t")) for line in printed.splitlines())
    ours: Counter[tuple[str, ...]] = Counter()
    for event in run.events:
        if event["segs"] != 1:
            continue
        source = event["remote_port" if event["kind"] == "receive" else "local_port"]
        ranges = [each.split(":") for each in (event["sack"] or "").split(", ") if each]
        shown = (source, event["seq"], event["ack"], *(event[name] for name in SYN_OPTIONS))
        ours[
            *("" if value is None else str(value) for value in shown),
            ",".join(left for left, _ in ranges),
            ",".join(right for _, right in ranges),
            "0402" if event["sack_permitted"] else "",
        ] += 1
    assert ours - theirs == Counter()
    assert any(event["sack"] for event in run.events)
    assert any(event["kind"] == "retransmit" and event["ts_val"] for event in run.events)


@pytest.mark.native
def test_the_scale_is_noted_where_no_handshake_tells(tmp_path: Path) -> None:
    """Once for each end, as ss tells of the socket."""
    path = tmp_path / "late.pcapng"
    arguments = ["--packets", "segments", "--format", "pcapng"]
    with joined() as pair:
        client, server = pair.connection(4, 5910, SMALL_BUFFER)
        with closing(client), closing(server):
            port = client.getsockname()[1]
            with tracing(path, *arguments, "--netns", pair.client.path):
                ping_pong(client, server, 2)
            told = pair.client.run("ss", "-tin", f"sport = :{port}")
    found = re.search(r"wscale:(\d+),(\d+)", told)
    assert found, told
    sent, received = found.groups()
    assert sent != received
    noted = fields(path, "tcp.srcport", "frame.comment", only='frame.comment contains "scale"')
    scales = {(source, comment.rpartition("window scale ")[2]) for source, comment in noted}
    assert scales == {("5910", sent), (str(port), received)}
    assert len(noted) == 2


@pytest.mark.native
def test_a_pipe_into_tshark() -> None:
    """With no more than the format: handshake, data and answers, with options and payload."""
    names = ("tcp.srcport", "tcp.flags.str", "tcp.options.mss_val", "tcp.payload")
    with joined() as pair, piped(pair.client, *names) as rows:
        client, server = pair.connection(6, 5912)
        with closing(client), closing(server):
            client.sendall(b"ask")
            receive(server, 3)
            server.sendall(b"answer")
            receive(client, 6)
            hang_up(client, server)
        pair.await_closed()
    told = {(row[0] == "5912", row[1].replace("·", "")): row[2:] for row in rows}
    mss = told[False, "S"][0]
    assert told[True, "AS"][0] == mss
    assert 1000 < int(mss) < 1500
    assert told[False, "AP"][1] == b"ask".hex()
    assert told[True, "AP"][1] == b"answer".hex()
    assert (False, "AF") in told
    assert (True, "AF") in told


@contextmanager
def piped(netns: Netns, *names: str) -> Iterator[list[list[str]]]:
    """Trace a namespace into tshark; give the fields that it has read in the end."""
    rows: list[list[str]] = []
    words = [TCPRISM, "trace", "--netns", netns.path, "--format", "pcapng"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as traced:
        try:
            assert traced.stdout
            assert traced.stderr
            with reading(traced.stdout, *names) as reader:
                while not (line := traced.stderr.readline()).startswith(b"tracing"):
                    assert line
                yield rows
                traced.send_signal(signal.SIGINT)
                rows += [line.split("\t") for line in reader.communicate()[0].splitlines()]
        finally:
            traced.kill()
