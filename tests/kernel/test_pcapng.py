"""Segments as packets, against tcpdump, both as tshark reads them."""

from contextlib import closing
from pathlib import Path

import pytest

from tests.support import hooks
from tests.support.capture import capturing
from tests.support.conversation import hang_up
from tests.support.tracer import Tracer
from tests.support.tshark import fields
from tests.support.wire import Wire, lose_flagged, wired

pytestmark = [
    pytest.mark.native,
    pytest.mark.skipif(
        hooks.segment_hooks() != ["tracepoint"], reason="fentry and kprobes see no SYN-ACK"
    ),
]
SYN_ACKS = "tcp.flags.syn == 1 && tcp.flags.ack == 1"
AGAIN = "tcp.analysis.retransmission"


def handshakes(wire: Wire) -> None:
    """Make connections whose first SYN-ACKs are lost, by both families."""
    for number, times in enumerate((1, 2, 0)):
        wire.rule = lose_flagged("SYN|ACK", times)
        client, server = wire.connection(6 if number else 4, 5700 + number)
        with closing(client), closing(server):
            hang_up(client, server)


def test_a_syn_ack_is_one_packet_each_time(tmp_path: Path) -> None:
    """As many as tcpdump has, and as many of them sent again."""
    ours, theirs = tmp_path / "ours.pcapng", tmp_path / "theirs.pcap"
    with wired() as wire:
        arguments = ("--kinds", "transmit,retransmit", "--netns", wire.server.path)
        tracer = Tracer(ours, *arguments, written=("--format", "pcapng"))
        with closing(tracer), capturing(wire.server, "veth0", theirs, "10.77.0.1"):
            tracer.await_attached()
            handshakes(wire)
            assert tracer.stop() == 0
    for only in (SYN_ACKS, f"{SYN_ACKS} && {AGAIN}"):
        packets = [fields(path, "tcp.srcport", "tcp.seq_raw", only=only) for path in (ours, theirs)]
        assert packets[0] == packets[1]
    assert len(fields(theirs, "tcp.srcport", only=f"{SYN_ACKS} && {AGAIN}")) >= 3
