"""Segments that few programs send: crossed SYNs, packets that are too long for IP's header.

The truth: what the wire carried, the kernel's counters, and what the test wrote into a device.
"""

import fcntl
import os
import select
import socket
import struct
import threading
from collections import Counter
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import hooks
from tests.support.capture import Packet
from tests.support.conversation import hang_up, ping_pong, receive
from tests.support.netns import (
    ETHTOOL_SGSO,
    ETHTOOL_STSO,
    PATIENCE,
    Netns,
    Pair,
    joined,
    namespace,
)
from tests.support.segments import ACK, PSH, SYN, checksum, segment
from tests.support.tracer import Event, tracing, tracing_all
from tests.support.tshark import fields
from tests.support.wire import Rule, Wire, wired

CROSSED, LONG, OFFLOADED, REFUSED = 5980, 5984, 5988, 5989  # ports, to which the family is added
HOLD = 0.4  # seconds; none is sent again by then
LONGER = 185_000  # bytes: more than IP's header can tell
MUCH = 4_000_000  # bytes
ABORT = struct.pack("ii", 1, 0)  # struct linger: on, no time
TUNSETIFF, TUNSETOFFLOAD = 0x400454CA, 0x400454D0  # linux/if_tun.h
IFF_TUN, IFF_NO_PI, IFF_VNET_HDR = 0x1, 0x1000, 0x4000
TUN_F_CSUM, TUN_F_TSO4 = 1, 2
NEEDS_CHECKSUM, GSO_TCPV4 = 1, 1  # linux/virtio_net.h
IPV6_DSTOPTS = 59  # linux/in6.h
NO_OPTIONS = bytes([0, 0, 1, 4, 0, 0, 0, 0])  # an extension header of padding alone
IFLA_MAX_SIZES = (58, 63, 64)  # GRO, GSO by IPv4, GRO by IPv4: linux/if_link.h

Header = tuple[str, int, int, str]


def hold_syns(both_connect: threading.Event) -> Rule:
    """Hold up SYNs, so that neither end knows of the other's, and what answers them."""

    def rule(packet: Packet, _to_server: bool) -> float:
        if "SYN" not in packet.flags:
            return 0.0
        assert both_connect.wait(PATIENCE)
        return HOLD

    return rule


def cross(wire: Wire, client: socket.socket, server: socket.socket, family: int) -> None:
    """Have both ends connect at once, and talk."""
    there, port, both_connect = wire.server_addresses[family], CROSSED + family, threading.Event()
    hosts = (there[:-1] + "1", there)
    wire.rule = hold_syns(both_connect)
    for end, host in zip((client, server), hosts, strict=True):
        end.bind((host, port))
        end.setblocking(False)
    for end, host in zip((client, server), reversed(hosts), strict=True):
        with suppress(BlockingIOError):
            end.connect((host, port))
    both_connect.set()
    for end in (client, server):
        assert select.select([], [end], [], 60)[1]
        assert not end.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        end.settimeout(60)
    ping_pong(client, server, 1)
    hang_up(client, server)


@pytest.fixture(scope="module")
def crossed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, list[Event]], set[Header]]:
    """What each hook tells of connections that both ends open, and what asks and answers there."""
    outputs = {hook: tmp_path_factory.mktemp("crossed") / hook for hook in hooks.segment_hooks()}
    with wired() as wire:
        chosen = ("--netns", wire.client.path, "--netns", wire.server.path)
        runs = {
            path: ["--hooks", hook, "--kinds", "transmit,retransmit,receive", *chosen]
            for hook, path in outputs.items()
        }
        with tracing_all(runs) as tracers:
            for family, kind in ((4, socket.AF_INET), (6, socket.AF_INET6)):
                client, server = wire.client.socket(kind), wire.server.socket(kind)
                with closing(client), closing(server):
                    cross(wire, client, server, family)
            wire.await_closed()
        carried = {(p.source_ip, p.seq, p.ack, p.flags) for p in wire.passed if "SYN" in p.flags}
    told = dict(zip(outputs, tracers, strict=True))
    return {hook: tracer.events for hook, tracer in told.items()}, carried


@pytest.mark.parametrize("hook", hooks.segment_hooks())
def test_crossed_syns(crossed: tuple[dict[str, list[Event]], set[Header]], hook: str) -> None:
    """Each end answers the other's SYN by its own and an ACK, which no counter has."""
    events, carried = crossed[0][hook], crossed[1]
    asked = [event for event in events if "SYN" in event["flags"]]
    sent = {
        (event["local_ip"], event["seq"], event["ack"], event["flags"])
        for event in asked
        if event["kind"] != "receive"
    }
    assert sent == carried
    assert Counter("ACK" in flags for *_, flags in carried) == {True: 4, False: 4}
    came = [event["arrival"] for event in asked if event["kind"] == "receive"]
    assert len(came) >= len(carried)
    # A slow machine sends some again, which come when all is done.
    assert set(came) <= {None, "duplicate", "no_socket"}


def _allow_longer(netns: Netns) -> None:
    """Allow packets of LONGER bytes (BIG TCP); this old `ip` does not know of IPv4's."""
    netns.offload("veth0", {ETHTOOL_STSO: True, ETHTOOL_SGSO: True})
    netns.ip(f"link set veth0 gso_max_size {LONGER}")
    with netns.entered(), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as link:
        attributes = b"".join(struct.pack("=HHI", 8, kind, LONGER) for kind in IFLA_MAX_SIZES)
        body = struct.pack("=BxHiII", 0, 0, socket.if_nametoindex("veth0"), 0, 0) + attributes
        link.send(struct.pack("=IHHII", 16 + len(body), 16, 5, 1, 0) + body)
        assert struct.unpack_from("=i", link.recv(4096), 16) == (0,)


def send_to_nobody(pair: Pair, family: int) -> None:
    """Send much, and go on when the other end is no more and its reset was lost."""
    client, server = pair.connection(family, LONG + family)
    with closing(client):
        reader = threading.Thread(target=receive, args=(server, MUCH))
        reader.start()
        client.sendall(b"x" * MUCH)  # so that much may be under way
        reader.join()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
        server.close()
        client.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                client.send(b"x" * MUCH)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)


def refuse_with_extensions(pair: Pair) -> None:
    """Connect to nobody, with a header between those of IP and TCP."""
    with pair.client.socket(socket.AF_INET6) as client:
        client.setsockopt(socket.IPPROTO_IPV6, IPV6_DSTOPTS, NO_OPTIONS)
        with pytest.raises(ConnectionRefusedError):
            client.connect((pair.server_addresses[6], REFUSED))


@dataclass
class NoSocket:
    """What arrived at the server, what the client counted as sent, the server as come."""

    events: list[Event]
    sent: int
    came: int
    packets: Path


@pytest.fixture(scope="module")
def no_socket(tmp_path_factory: pytest.TempPathFactory) -> NoSocket:
    """One run of all that finds no socket."""
    directory = tmp_path_factory.mktemp("nobody")
    events, capture = directory / "events", directory / "pcapng"
    with joined() as pair:
        _allow_longer(pair.client)
        _allow_longer(pair.server)
        pair.client.run(
            "nft",
            "add table inet deaf; "
            "add chain inet deaf in { type filter hook prerouting priority 0; };"
            f"add rule inet deaf in tcp sport {{ {LONG + 4}, {LONG + 6} }} tcp flags rst drop",
        )
        before = pair.client.tcp_counters(), pair.server.tcp_counters()
        only = ("--netns", pair.server.path, "--kinds", "receive")
        runs = {events: [*only, "--options"], capture: [*only, "--format", "pcapng"]}
        with tracing_all(runs) as tracers:
            for family in (4, 6):
                send_to_nobody(pair, family)
            refuse_with_extensions(pair)
            pair.await_closed()
            after = pair.client.tcp_counters(), pair.server.tcp_counters()
        assert not tracers[1].failure
    sent = sum(after[0][name] - before[0][name] for name in ("OutSegs", "RetransSegs"))
    return NoSocket(tracers[0].events, sent, after[1]["InSegs"] - before[1]["InSegs"], capture)


@pytest.mark.native
def test_segments_longer_than_their_header_can_tell(no_socket: NoSocket) -> None:
    """BIG TCP: they have 0 there, or a header more; of those without a socket, too."""
    assert len(no_socket.events) == no_socket.came
    assert sum(event["segs"] for event in no_socket.events) == no_socket.sent
    assert max(event["bytes"] for event in no_socket.events) < LONGER
    for family in (4, 6):
        lengths = [
            event["bytes"]
            for event in no_socket.events
            if event["arrival"] == "no_socket" and event["local_port"] == LONG + family
        ]
        assert max(lengths) > 65_535
    assert len(fields(no_socket.packets, "frame.number", only="tcp")) == no_socket.sent


@pytest.mark.native
def test_a_segment_with_extension_headers(no_socket: NoSocket) -> None:
    """IPv6 may have headers between its own and TCP's."""
    (event,) = (e for e in no_socket.events if e["local_port"] == REFUSED)
    assert (event["flags"], event["arrival"], event["bytes"]) == ("SYN", "no_socket", 0)
    assert event["max_segment_size"]


class Device:
    """A device of a namespace, into which the test writes what another host is to have sent."""

    here, there = ("10.78.0.1", OFFLOADED), ("10.78.0.2", 5000)

    def __init__(self, netns: Netns) -> None:
        with netns.entered():
            self._file = os.open("/dev/net/tun", os.O_RDWR)
        flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR
        fcntl.ioctl(self._file, TUNSETIFF, struct.pack("16sH22x", b"tun0", flags))
        fcntl.ioctl(self._file, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4)
        netns.ip(f"address add {self.here[0]}/24 dev tun0", "link set tun0 up")

    def close(self) -> None:
        """Take it away."""
        os.close(self._file)

    def write(self, seq: int, ack: int, flags: int, payload: bytes = b"", size: int = 0) -> None:
        """Write a segment; with `size`, one that was to be cut into segments of so many bytes."""
        packet = bytearray(segment(self.there, self.here, seq, ack, flags, payload))
        packet[10:12] = struct.pack(">H", checksum(bytes(packet[:20])))
        head = struct.pack("<BBHHHH", 0, 0, 0, 0, 0, 0)
        if size:
            pseudo = bytes(packet[12:20]) + struct.pack(">HH", socket.IPPROTO_TCP, len(packet) - 20)
            packet[36:38] = struct.pack(">H", ~checksum(pseudo) & 0xFFFF)
            head = struct.pack("<BBHHHH", NEEDS_CHECKSUM, GSO_TCPV4, 40, size, 20, 16)
        os.write(self._file, head + bytes(packet))

    def await_syn_ack(self) -> int:
        """Return the sequence number of a SYN-ACK."""
        while True:
            packet = os.read(self._file, 1 << 16)[10:]
            if packet[0] >> 4 == 4 and packet[9] == socket.IPPROTO_TCP:
                return int(struct.unpack_from(">I", packet, 24)[0])


@pytest.mark.native
def test_segments_that_a_device_has_put_together(tmp_path: Path) -> None:
    """A virtual machine's network card tells how long each was, and not how many there were."""
    size, count = 1000, 5
    with namespace() as netns, closing(Device(netns)) as device, netns.socket() as listener:
        listener.bind(device.here)
        listener.listen()
        with tracing(tmp_path / "events", "--netns", netns.path, "--kinds", "receive") as tracer:
            device.write(1000, 0, SYN)
            ack = device.await_syn_ack() + 1
            device.write(1001, ack, ACK)
            server, _ = listener.accept()
            with server:
                device.write(1001, ack, PSH | ACK, b"x" * (size * count - 1), size)
                receive(server, size * count - 1)
    told = [(event["bytes"], event["segs"]) for event in tracer.events]
    assert told == [(0, 1), (0, 1), (size * count - 1, count)]


def send_ipv6(raw: socket.socket, port: int, extension: int, length: int, more: int = 0) -> None:
    """Send a SYN by IPv6 behind an extension header of 8 bytes that claims `length` times 8 more.

    IPv6's own header claims `more` bytes than there are.
    """
    options = bytes([socket.IPPROTO_TCP, length, *NO_OPTIONS[2:]])
    syn = struct.pack(">HHIIBBHHH", port, REFUSED, 1, 0, 5 << 4, SYN, 1000, 0, 0)
    header = struct.pack(">IHBB", 6 << 28, len(options + syn) + more, extension, 64)
    loopback = socket.inet_pton(socket.AF_INET6, "::1")
    raw.sendto(header + 2 * loopback + options + syn, ("::1", 0))


@pytest.mark.native
def test_packets_that_claim_more_than_they_have(netns: Netns, tmp_path: Path) -> None:
    """The kernel drops them; what lies behind them in its memory is no segment."""
    netns.run("nft", "add table inet deaf; add chain inet deaf in { type filter hook input priority"
              f" 0; }}; add rule inet deaf in tcp dport {REFUSED} drop")  # fmt: skip
    chosen = ("--netns", netns.path, "--kinds", "drop,receive")
    with netns.entered():
        raw = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)
    with raw, tracing(tmp_path / "events", *chosen) as tracer:
        for extension in (socket.IPPROTO_HOPOPTS, socket.IPPROTO_DSTOPTS):
            for more in (0, 3000):
                send_ipv6(raw, 1, extension, 255, more)
                send_ipv6(raw, 2, extension, 4, more)
        send_ipv6(raw, 3, socket.IPPROTO_DSTOPTS, 0)
    (event,) = tracer.events
    assert (event["kind"], event["reason"], event["bytes"]) == ("drop", "NETFILTER_DROP", 0)
    assert {event["local_port"], event["remote_port"]} == {REFUSED, 3}
