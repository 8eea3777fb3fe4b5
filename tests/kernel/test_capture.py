"""A capture of both directions, against tcpdump's of the same run, both as tshark reads them."""

import base64
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from tcprism.events._wire import PAYLOAD_MAX
from tcprism.sources.request import SEGMENT_KINDS
from tests.support import hooks, scenes
from tests.support.capture import FLAG_NAMES, capturing
from tests.support.conversation import hang_up, ping_pong, receive
from tests.support.netns import Netns, joined
from tests.support.tracer import TCPRISM, Event, tracing, tracing_all
from tests.support.tshark import fields, reading, tshark, wrong
from tests.support.wire import wired

DISORDER, FAST, MARKED, MULTIPATH = (
    5910,
    5920,
    5930,
    5940,
)  # ports: the families of the first are 5924, 5926
LATE_ACKS = f"tcp.port in {{{DISORDER}..{DISORDER + 6}, {MULTIPATH}}}"
ECN = {4: scenes.CLASSIC_ECN, 6: scenes.ACCURATE_ECN}
FIRST_CLIENT = 32_768  # the lowest port that the kernel chooses
PACKET = (
    *("ip.src", "ipv6.src", "tcp.srcport", "tcp.dstport", "tcp.seq_raw", "tcp.ack_raw", "tcp.len"),
    *("tcp.flags", "tcp.window_size_value", "tcp.options", "ip.dsfield.ecn"),
    "ipv6.tclass.ecn",
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
        wire.rule = scenes.steady
        common = ["--netns", wire.client.path, "--payload", str(PAYLOAD_MAX)]
        chosen = [*common, "--format", "pcapng"]
        arguments = [*common, "--options", "--kinds", ",".join(SEGMENT_KINDS)]
        with (
            tracing_all({made.ours: chosen, events: arguments}) as tracers,
            capturing(wire.client, "veth0", made.theirs, "10.77.0.2"),
        ):
            for family in (4, 6):
                scenes.disturbed(wire, family, 5900 + family)
                scenes.disordered(wire, family, DISORDER + family)
                scenes.opened_fast(wire, family, FAST + family)
                scenes.congested(wire, family, MARKED + family, ECN[family])
            scenes.stopped(wire, 5908)
            if hooks.has_mptcp():
                scenes.multipath(wire, MULTIPATH)
            wire.await_closed()
        made.events = tracers[1].events
        assert not tracers[0].failure, tracers[0].failure
    return made


def rows(path: Path, *names: str, only: str = "tcp") -> Counter[tuple[str, ...]]:
    return Counter(tuple(row) for row in fields(path, *names, only=only))


def test_the_same_packets(run: Run) -> None:
    """Headers and options of both directions are as on the wire.

    With MPTCP, and where a FIN is repeated, there are ACKs when what is left of a connection is no
    socket: these may be missing.
    """
    only = f"tcp.len > 0 || tcp && !({LATE_ACKS})"
    assert rows(run.ours, *PACKET, only=only) == rows(run.theirs, *PACKET, only=only)
    assert rows(run.ours, *PACKET) <= rows(run.theirs, *PACKET)
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
    (syn,) = [event for event in sent if event["flags"].startswith("SYN")]
    data = {
        (event["seq"] - syn["end_seq"]) % 2**32: base64.b64decode(event["payload"])
        for event in sent
        if event["bytes"]
    }
    assert b"".join(data[place] for place in sorted(data))[: scenes.BYTES] == scenes.SENT
    assert not any(event["payload_truncated"] for event in sent)


def test_wireshark_finds_the_same(run: Run) -> None:
    """Retransmissions, duplicate ACKs, scaled windows, closed windows and their end.

    It has a remark on each packet with a comment, too, which it puts first. In disorder, what it
    finds is a matter of microseconds.
    """
    only = f"tcp && !({LATE_ACKS})"
    names = (*PACKET, *ANALYSIS, "_ws.expert.message", "frame.comment")
    ours, theirs = (
        Counter(
            (*row[:-2], row[-2].removeprefix(row[-1]).lstrip(","))
            for row in fields(path, *names, only=only)
        )
        for path in (run.ours, run.theirs)
    )
    assert ours == theirs
    assert any("suspected" in row[-1] for row in theirs)
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
    assert min(far) >= 2 * scenes.DELAY


SYN_OPTIONS = {
    "max_segment_size": "tcp.options.mss_val",
    "window_scale": "tcp.options.wscale.shift",
    "ts_val": "tcp.options.timestamp.tsval",
    "ts_ecr": "tcp.options.timestamp.tsecr",
}
SUBTYPES = "MP_CAPABLE MP_JOIN DSS ADD_ADDR REMOVE_ADDR MP_PRIO MP_FAIL MP_FASTCLOSE MP_TCPRST"
ECN_NAMES = {"": "", "0": "", "1": "ect1", "2": "ect0", "3": "ce"}  # RFC 3168
ECN_FIELDS = ("ip.dsfield.ecn", "ipv6.tclass.ecn")
OTHER_FIELDS = (
    *("tcp.flags", *ECN_FIELDS, "tcp.options.tfo.request", "tcp.options.tfo.cookie"),
    *("tcp.options.mptcp.subtype", "tcp.options.sack_le", "tcp.options.sack_re"),
    "tcp.options.sack_perm",
)


def columns_of_packet(row: list[str]) -> tuple[str, ...]:
    """Return what our columns should say, from the fields that tshark prints."""
    flags, ecn4, ecn6, asks, cookie, subtypes, left, right, permitted = row[-len(OTHER_FIELDS) :]
    bits = int(flags, 16)
    named = [name for bit, name in enumerate((*FLAG_NAMES, "AE")) if bits >> bit & 1]
    names = [SUBTYPES.split()[int(number)] for number in subtypes.split(",") if number]
    length = "0" if asks else str(len(cookie) // 2) if cookie else ""
    edges = zip(left.split(","), right.split(","), strict=True)
    return (
        *row[: -len(OTHER_FIELDS)],
        *("|".join(named), ECN_NAMES[ecn4 or ecn6], length, ", ".join(names)),
        ", ".join(f"{one}:{other}" for one, other in edges if one),
        "True" if permitted else "",
    )


def columns_of_event(event: Event) -> tuple[str, ...]:
    source = event["remote_port" if event["kind"] == "receive" else "local_port"]
    names = ("flags", "ecn", "fast_open_cookie_length", "mptcp", "sack", "sack_permitted")
    shown = (source, event["seq"], event["ack"], *(event[name] for name in SYN_OPTIONS))
    found = (*shown, *(event.get(name) for name in names))
    return tuple("" if value is None or value is False else str(value) for value in found)


def test_columns_of_options(run: Run) -> None:
    """As tshark reads them off tcpdump's capture, with ECN's marks; of a retransmission, too."""
    names = ("tcp.srcport", "tcp.seq_raw", "tcp.ack_raw", *SYN_OPTIONS.values(), *OTHER_FIELDS)
    wanted = (word for name in names for word in ("-e", name))
    absolute = ("-o", "tcp.relative_sequence_numbers:FALSE", "-Y", "tcp", "-T", "fields")
    printed = tshark(run.theirs, *absolute, *wanted)
    theirs = Counter(columns_of_packet(line.split("\t")) for line in printed.splitlines())
    ours = Counter(columns_of_event(event) for event in run.events if event["segs"] == 1)
    assert ours - theirs == Counter()
    assert any(event["sack"] for event in run.events)
    assert any(event["kind"] == "retransmit" and event["ts_val"] for event in run.events)


def test_disorder_is_there(run: Run) -> None:
    """Out of order, lost and sent again, both ways; what arrives is what the server sent."""
    for family in (4, 6):
        its = [e for e in run.events if DISORDER + family in (e["local_port"], e["remote_port"])]
        came = [event for event in its if event["kind"] == "receive"]
        (syn,) = {event["end_seq"] for event in came if "SYN" in event["flags"]}
        begins = []
        for event in came:
            if event["bytes"]:
                begins.append((event["seq"] - syn) % 2**32)
                payload = base64.b64decode(event["payload"])
                assert payload == scenes.SENT[begins[-1] :][: event["bytes"]]
        assert sum(here > there for here, there in pairwise(begins)) > 5
        assert any(event["kind"] == "retransmit" and event["bytes"] for event in its)


def test_fast_open_ecn_and_mptcp_are_there(run: Run) -> None:
    """So that the other tests are about them."""
    lengths = {event["fast_open_cookie_length"] for event in run.events}
    assert {0, 8} <= lengths
    assert any(event["flags"] == "SYN" and event["bytes"] for event in run.events)
    marked = [e for e in run.events if MARKED + 4 in (e["local_port"], e["remote_port"])]
    assert {"ect0", "ce"} <= {event.get("ecn") for event in marked}
    flags = {flag for event in marked for flag in event["flags"].split("|")}
    assert {"ECE", "CWR"} <= flags
    subtypes = {word for e in run.events if e["mptcp"] for word in e["mptcp"].split(", ")}
    assert ({"MP_CAPABLE", "DSS"} <= subtypes) == hooks.has_mptcp()


@pytest.mark.native
def test_the_scale_is_noted_where_no_handshake_tells(tmp_path: Path) -> None:
    """Once for each end, as ss tells of the socket."""
    path = tmp_path / "late.pcapng"
    arguments = ["--packets", "segments", "--format", "pcapng"]
    with joined() as pair:
        client, server = pair.connection(4, 5910, scenes.SMALL_BUFFER)
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
