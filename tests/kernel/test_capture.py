"""A capture of both directions, against tcpdump's of the same run, both as tshark reads them."""

import base64
import re
import signal
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from tcprism.events._wire import PAYLOAD_MAX
from tcprism.events.kinds import SEGMENT_KINDS
from tests.support import hooks, scenes
from tests.support.capture import FLAG_NAMES, capturing
from tests.support.conversation import hang_up, ping_pong, receive
from tests.support.netns import Netns, joined
from tests.support.tracer import TCPRISM, Event, tracing, tracing_all
from tests.support.tshark import fields, reading, tshark, wrong
from tests.support.wire import wired

DISORDER, FAST, MARKED, MULTIPATH = 5910, 5920, 5930, 5940  # ports, to which the family is added
ECN = {4: scenes.CLASSIC_ECN, 6: scenes.ACCURATE_ECN}
FIN, SYN = 1, 2
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
SENT_AGAIN = (
    *("tcp.analysis.retransmission", "tcp.analysis.fast_retransmission"),
    "tcp.analysis.out_of_order",
)
TELLING = ("retransmission", "duplicate_ack", "zero_window", "window_update")
OPTIONS = (
    *("tcp.options.mss_val", "tcp.options.wscale.shift", "tcp.options.timestamp.tsval"),
    *("tcp.options.timestamp.tsecr", "tcp.options.tfo.request", "tcp.options.tfo.cookie"),
    *("tcp.options.mptcp.subtype", "tcp.options.sack_le", "tcp.options.sack_re"),
    "tcp.options.sack_perm",
)
# The kernel's sum may be 0xffff where 0 is meant; one in 65,536 segments has it.
_RFC_1624 = re.compile(r",?TCP Checksum 0xffff instead of 0x0000 \(see RFC 1624\)")
OTHERS = ("tcp.payload", "frame.comment", "_ws.expert.message", "tcp.analysis.ack_rtt")
Fields = dict[str, str]


def read(path: Path) -> list[Fields]:
    """Return all that the tests want to know of each packet, as tshark reads it."""
    names = (*PACKET, *ANALYSIS, *OPTIONS, *OTHERS)
    absolute = ("-o", "tcp.relative_sequence_numbers:FALSE", "-Y", "tcp", "-T", "fields")
    printed = tshark(path, *absolute, *(word for name in names for word in ("-e", name)))
    return [dict(zip(names, line.split("\t"), strict=True)) for line in printed.splitlines()]


def ends(packet: Fields) -> frozenset[str]:
    """Return what tells a connection apart: its ports."""
    return frozenset((packet["tcp.srcport"], packet["tcp.dstport"]))


def late(packets: list[Fields]) -> Counter[tuple[str, ...]]:
    """Return packets that may leave or arrive when no socket is left: both FINs have gone before.

    MPTCP goes on talking, so that it may be any that carries nothing.
    """
    fins: dict[frozenset[str], set[str]] = defaultdict(set)
    found = []
    for packet in packets:
        closed = fins[ends(packet)]
        if not int(packet["tcp.len"]) and (len(closed) == 2 or str(MULTIPATH) in ends(packet)):
            found.append(packet)
        if int(packet["tcp.flags"], 16) & FIN:
            closed.add(packet["tcp.srcport"])
    return counted(found, *PACKET)


def unsteady(packets: list[Fields]) -> set[frozenset[str]]:
    """Return the connections in which what is found is a matter of microseconds.

    There was disorder, or a slow machine repeated a SYN or FIN.
    """
    made = [packet for packet in packets if int(packet["tcp.flags"], 16) & (SYN | FIN)]
    flags = Counter((ends(p), p["tcp.srcport"], p["tcp.flags"], p["tcp.seq_raw"]) for p in made)
    odd = {str(port) for port in (DISORDER + 4, DISORDER + 6, MULTIPATH)}
    repeated = {key[0] for key, count in flags.items() if count > 1}
    return repeated | {ends(packet) for packet in packets if odd & ends(packet)}


@dataclass
class Run:
    """Our capture, tcpdump's, and our events."""

    capture: Path
    events: list[Event]
    ours: list[Fields]
    theirs: list[Fields]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One run of everything at a client."""
    directory = tmp_path_factory.mktemp("capture")
    ours, theirs = directory / "ours.pcapng", directory / "theirs.pcap"
    events = directory / "events"
    with wired() as wire:
        wire.rule = scenes.steady
        common = ["--netns", wire.client.path, "--payload", str(PAYLOAD_MAX)]
        chosen = [*common, "--format", "pcapng"]
        arguments = [*common, "--options", "--kinds", ",".join(SEGMENT_KINDS)]
        with (
            capturing(wire.client, "veth0", theirs, "10.77.0.2"),  # MPTCP has late words
            tracing_all({ours: chosen, events: arguments}) as tracers,
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
        assert not tracers[0].failure, tracers[0].failure
    return Run(ours, tracers[1].events, read(ours), read(theirs))


def counted(packets: Iterable[Fields], *names: str) -> Counter[tuple[str, ...]]:
    return Counter(tuple(packet[name] for name in names) for packet in packets)


def blurred(found: Counter[tuple[str, ...]]) -> Counter[tuple[str, ...]]:
    """Say of what was found only whether a segment was sent again.

    Wireshark takes it for one that is out of order if it left less than a round trip after the one
    before. A fast retransmission leaves after just that, so microseconds decide.
    """
    places = [len(PACKET) + ANALYSIS.index(name) for name in SENT_AGAIN] + [-1]
    blurry: Counter[tuple[str, ...]] = Counter()
    for key, count in found.items():
        values = list(key)
        again = any(values[place] for place in places[:-1])
        for place in places if again else ():
            values[place] = "again"
        blurry[tuple(values)] += count
    return blurry


def test_the_same_packets(run: Run) -> None:
    """Headers and options of both directions are as on the wire."""
    ours, theirs = (counted(packets, *PACKET) for packets in (run.ours, run.theirs))
    assert ours - theirs == Counter()
    assert theirs - ours <= late(run.theirs)
    assert len(run.ours) > 100
    assert wrong(run.capture) == []


def test_the_same_payload(run: Run) -> None:
    """Each packet's bytes are those on the wire; a retransmission comes without."""
    carrying = [packet for packet in run.ours if packet["tcp.len"] != "0"]
    without = [packet for packet in carrying if not packet["tcp.payload"]]
    whole = counted((p for p in carrying if p["tcp.payload"]), *PACKET, "tcp.payload")
    assert whole <= counted(run.theirs, *PACKET, "tcp.payload")
    assert all("cause" in packet["frame.comment"] for packet in without)
    begins = counted(
        (packet for packet in run.theirs if packet["tcp.len"] != "0"),
        *("tcp.srcport", "tcp.dstport", "tcp.seq_raw"),
    )
    assert 0 < len(without) <= begins.total() - len(begins)


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

    It has a remark on each packet with a comment, too, which it puts first.
    """
    left_out = unsteady(run.theirs)
    for packet in (*run.ours, *run.theirs):
        message = packet["_ws.expert.message"].removeprefix(packet["frame.comment"])
        packet["_ws.expert.message"] = _RFC_1624.sub("", message).strip(",")
    ours, theirs = (
        counted(
            (packet for packet in packets if ends(packet) not in left_out),
            *(*PACKET, *ANALYSIS, "_ws.expert.message"),
        )
        for packets in (run.ours, run.theirs)
    )
    assert blurred(ours - theirs) == blurred(theirs - ours)
    assert any("suspected" in packet["_ws.expert.message"] for packet in run.theirs)
    for name in TELLING:
        assert any(packet[f"tcp.analysis.{name}"] for packet in run.theirs), name


def test_round_trips_can_be_worked_out(run: Run) -> None:
    """Each ACK that tshark times in one file it times in the other, and none is too short."""
    left_out = unsteady(run.theirs)
    ours, theirs = (
        {
            (p["tcp.srcport"], p["tcp.ack_raw"], p["tcp.dstport"]): float(p["tcp.analysis.ack_rtt"])
            for p in packets
            if p["tcp.analysis.ack_rtt"] and ends(p) not in left_out
        }
        for packets in (run.ours, run.theirs)
    )
    assert ours.keys() == theirs.keys()
    sent = Counter(
        (p["tcp.dstport"], str((int(p["tcp.seq_raw"]) + int(p["tcp.len"])) % 2**32))
        for p in run.theirs
        if p["tcp.len"] != "0"
    )
    far = [  # what was sent once: a slow machine sends some again just before it is acknowledged
        rtt
        for (port, ack, _), rtt in ours.items()
        if int(port) < FIRST_CLIENT and sent[port, ack] <= 1
    ]
    assert min(far) >= 2 * scenes.DELAY


SUBTYPES = "MP_CAPABLE MP_JOIN DSS ADD_ADDR REMOVE_ADDR MP_PRIO MP_FAIL MP_FASTCLOSE MP_TCPRST"
ECN_NAMES = {"": "", "0": "", "1": "ect1", "2": "ect0", "3": "ce"}  # RFC 3168
COLUMNS = ("max_segment_size", "window_scale", "ts_val", "ts_ecr")
ACCURATE = {"ac": ("ee0b", "eceb", "ee1b"), "ae": ("ee1b", "eceb", "ee0b")}  # RFC 9768, 3.2.3


def accurate_ecn(options: str) -> dict[str, int]:
    """Return the counters of the AccECN option, which this tshark does not read, in hexadecimal."""
    while options and options[:2] != "00":
        size = 2 if options[:2] == "01" else 2 * int(options[2:4], 16)
        if names := ACCURATE.get(options[:2]):
            fields = [options[at : at + 6] for at in range(4, size, 6)]
            return {name: int(each, 16) for name, each in zip(names, fields, strict=False)}
        options = options[size:]
    return {}


def columns_of_packet(packet: Fields) -> tuple[str, ...]:
    """Return what our columns should say, from the fields that tshark prints."""
    mss, scale, ts_val, ts_ecr, asks, cookie, subtypes, left, right, permitted = (
        packet[name] for name in OPTIONS
    )
    bits = int(packet["tcp.flags"], 16)
    named = [name for bit, name in enumerate((*FLAG_NAMES, "AE")) if bits >> bit & 1]
    names = [SUBTYPES.split()[int(number)] for number in subtypes.split(",") if number]
    length = "0" if asks else str(len(cookie) // 2) if cookie else ""
    counters = accurate_ecn(packet["tcp.options"])
    edges = zip(left.split(","), right.split(","), strict=True)
    return (
        *(packet["tcp.srcport"], packet["tcp.seq_raw"], packet["tcp.ack_raw"]),
        *(mss, scale, ts_val, ts_ecr, "|".join(named)),
        *(ECN_NAMES[packet["ip.dsfield.ecn"] or packet["ipv6.tclass.ecn"]], length),
        *(", ".join(names), ", ".join(f"{one}:{other}" for one, other in edges if one)),
        "True" if permitted else "",
        *(str(counters.get(name, "")) for name in ACCURATE["ac"]),
    )


def columns_of_event(event: Event) -> tuple[str, ...]:
    source = event["remote_port" if event["kind"] == "receive" else "local_port"]
    names = ("flags", "ecn", "fast_open_cookie_length", "mptcp", "sack", "sack_permitted",
             *(f"accecn_{name}" for name in ACCURATE["ac"]))  # fmt: skip
    shown = (source, event["seq"], event["ack"], *(event[name] for name in COLUMNS))
    found = (*shown, *(event.get(name) for name in names))
    return tuple("" if value is None or value is False else str(value) for value in found)


def test_columns_of_options(run: Run) -> None:
    """As tshark reads them off tcpdump's capture, with ECN's marks; of a retransmission, too."""
    theirs = Counter(map(columns_of_packet, run.theirs))
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
        assert sum(here > there for here, there in pairwise(begins)) > 1
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


def test_counters_of_accurate_ecn(run: Run) -> None:
    """Where the kernel speaks it: what the server says it got is what it acknowledges.

    Twice, if a slow machine has sent it twice.
    """
    its = [e for e in run.events if MARKED + 6 in (e["local_port"], e["remote_port"])]
    left = [event for event in its if event["kind"] == "transmit"]
    (syn,) = [event for event in left if event["flags"].startswith("SYN")]
    sent = sum(event["bytes"] for event in left)
    again = sum(event["bytes"] for event in its if event["kind"] == "retransmit")
    told = [e for e in its if e["kind"] == "receive" and e["accecn_ee1b"] and e["accecn_ee0b"]]
    for event in told:
        got = event["accecn_ee0b"] - 1 + event["accecn_eceb"] + event["accecn_ee1b"] - 1
        assert 0 <= got - min(sent, (event["ack"] - syn["end_seq"]) % 2**32) <= again
    assert any(event["accecn_eceb"] for event in told) == ("AE" in syn["flags"])


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
    first = reversed(rows)  # what is sent again comes without its payload
    told = {(row[0] == "5912", row[1].replace("·", "")): row[2:] for row in first}
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
