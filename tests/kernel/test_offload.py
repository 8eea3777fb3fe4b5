"""Segments that the device splits (TSO) and the kernel puts together again (GRO).

The truth: what tcpdump sees at the server's device, the kernel's counters at either end, and the
bytes that the client sent.
"""

import base64
import itertools
import random
import threading
from collections import Counter
from contextlib import closing
from dataclasses import dataclass

import pytest

from tcprism.events._wire import PAYLOAD_MAX
from tests.support.capture import capturing
from tests.support.conversation import hang_up, receive
from tests.support.netns import ETHTOOL_SGRO, ETHTOOL_SGSO, ETHTOOL_STSO, Pair, joined
from tests.support.tracer import Event, tracing
from tests.support.tshark import fields

SENT = random.Random(18).randbytes(120_000)
WAYS = {  # (TSO, GRO)
    "whole": (True, False),  # what is to be split reaches the other end as it is
    "merged": (False, True),
    "single": (False, False),
}
FAMILIES = (4, 6)
HEADER = ("tcp.seq_raw", "tcp.len", "tcp.flags", "tcp.options")
SYN = 0x02
CASES = [*itertools.product(WAYS, FAMILIES)]


def port_of(way: str, family: int) -> int:
    """Return the server's port."""
    return 5500 + 10 * family + list(WAYS).index(way)


@dataclass
class Run:
    """What was told and captured, and what the counters grew by: client's OutSegs, server's In."""

    events: list[Event]
    packets: list[list[str]]
    counted: dict[tuple[str, int], tuple[int, int]]
    netns: dict[str, int]

    def at(self, end: str, kind: str, way: str, family: int) -> list[Event]:
        """Return the events of a kind at one end of a connection."""
        return [
            event
            for event in self.events
            if (event["netns"], event["kind"]) == (self.netns[end], kind)
            and port_of(way, family) in (event["local_port"], event["remote_port"])
        ]


def send(pair: Pair, way: str, family: int) -> tuple[int, int]:
    """Send everything one way; return what was counted."""
    tso, gro = WAYS[way]
    for end in (pair.client, pair.server):
        end.offload("veth0", {ETHTOOL_STSO: tso, ETHTOOL_SGSO: tso, ETHTOOL_SGRO: gro})
    before = pair.client.tcp_counters(), pair.server.tcp_counters()
    client, server = pair.connection(family, port_of(way, family))
    with closing(client), closing(server):
        reader = threading.Thread(target=receive, args=(server, len(SENT)))
        reader.start()
        client.sendall(SENT)
        reader.join()
        hang_up(client, server)
    pair.await_closed()
    after = pair.client.tcp_counters(), pair.server.tcp_counters()
    out = sum(after[0][name] - before[0][name] for name in ("OutSegs", "RetransSegs"))
    return out, after[1]["InSegs"] - before[1]["InSegs"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One traced run of all cases."""
    directory = tmp_path_factory.mktemp("offload")
    with joined() as pair:
        ends = {"client": pair.client, "server": pair.server}
        netns = {name: end.inode for name, end in ends.items()}
        chosen = [word for end in ends.values() for word in ("--netns", end.path)]
        kinds = ("--kinds", "transmit,receive,retransmit", "--options")
        arguments = (*kinds, "--payload", str(PAYLOAD_MAX), *chosen)
        with (
            tracing(directory / "events", *arguments) as tracer,
            capturing(pair.server, "veth0", directory / "pcap", "10.77.0.1"),
        ):
            counted = {case: send(pair, *case) for case in CASES}
    packets = fields(directory / "pcap", "tcp.srcport", "tcp.dstport", *HEADER, only="tcp")
    return Run(tracer.events, packets, counted, netns)


all_cases = pytest.mark.parametrize(("way", "family"), CASES)


@all_cases
def test_segs_are_those_that_were_sent(run: Run, way: str, family: int) -> None:
    """InSegs counts packets, however many segments each is; OutSegs counts segments.

    A retransmission that failed sent none: the SYN may still wait for the neighbour's address.
    """
    sent, came = run.counted[way, family]
    events = run.at("server", "receive", way, family)
    assert len(events) == came
    assert sum(event["segs"] for event in events) == sent
    left = run.at("client", "transmit", way, family) + run.at("client", "retransmit", way, family)
    assert sum(event["segs"] for event in left if event["error"] is None) == sent
    assert any(event["segs"] > 1 for event in events) == (came < sent)
    assert (came < sent) or way != "whole"


@all_cases
def test_headers_are_those_of_the_capture(run: Run, way: str, family: int) -> None:
    """What arrives; and what leaves, where the device takes it whole, but for the handshake."""
    port = str(port_of(way, family))
    sides = [("receive", 1), ("transmit", 0)]
    for kind, side in sides if WAYS[way][0] else sides[:1]:
        told = Counter(
            (str(event["seq"]), str(event["bytes"]), flags(event["flags"]), event["options"] or "")
            for event in run.at("server", kind, way, family)
            if kind == "receive" or "SYN" not in event["flags"]
        )
        assert told == Counter(
            (seq, size, int(bits, 16), options)
            for *ports, seq, size, bits, options in run.packets
            if ports[side] == port and (kind == "receive" or not int(bits, 16) & SYN)
        )


def flags(text: str) -> int:
    """Return the bits of the flags."""
    names = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR")
    return sum(1 << names.index(name) for name in text.split("|"))


@all_cases
def test_payload_is_what_was_sent(run: Run, way: str, family: int) -> None:
    """At both ends, the first bytes of each packet, wherever the kernel keeps them."""
    (syn,) = (e for e in run.at("client", "transmit", way, family) if "SYN" in e["flags"])
    for end, kind in (("client", "transmit"), ("server", "receive")):
        reached = 0
        for event in run.at(end, kind, way, family):
            if not event["bytes"]:
                continue
            begin = (event["seq"] - syn["end_seq"]) % 2**32
            length = min(event["bytes"], PAYLOAD_MAX)
            assert base64.b64decode(event["payload"]) == SENT[begin : begin + length]
            assert event["payload_truncated"] == (length < event["bytes"])
            reached = max(reached, begin + event["bytes"])
        assert reached == len(SENT)
