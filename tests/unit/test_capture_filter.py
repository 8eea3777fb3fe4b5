"""Capture filters: what they choose is what tcpdump chooses."""

from __future__ import annotations

import os
import random
import socket
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tcprism import capture_filter
from tcprism.capture_filter import compiled
from tcprism.classic_bpf import Mask, Numbers, Packets
from tcprism.cli.capture_options import parse_capture_filter
from tcprism.errors import LibraryMissing, UsageError
from tcprism.events import Batch, Part
from tcprism.events._wire import OPTIONS_MAX, EventKind
from tcprism.events.tcp_options import with_options
from tcprism.helpers import FOLDERS
from tcprism.stages.capture import Captured
from tests.support.tshark import fields

from .records import rows_of

SAMPLE = Path(capture_filter.__file__).with_name("sample.tcpr")
TCPDUMP = next(
    (path for folder in FOLDERS if Path(path := f"{folder}/tcpdump").exists()), "tcpdump"
)
LINKTYPE_RAW = 101
EXPRESSIONS = (
    "host 10.0.0.1 and tcp[tcpflags] & tcp-rst != 0",
    "tcp[tcpflags] == tcp-syn|tcp-ack or tcp[13] & 2 != 0",
    "src host 10.0.0.1 and not port 80",
    "src port 80 and dst port 443 or dst host fd00::2",
    "net 10.0.0.0/31 or ip6 net fe80::/10",
    "portrange 1-100",
    "ip6",
    "udp",
    "greater 100",
    "less 60",
    "len % 3 == 1 or len = 40",
    "tcp[12] >> 4 > 5",
    "(ip[2:2] - ((ip[0] & 0xf) << 2)) - ((tcp[12] & 0xf0) >> 2) > 0",
    "tcp[tcp[12] / 4 : 4] > 0x80000000",
    "tcp[4:4] > 0x80000000 and tcp[14:2] < 30000",
    "ip[1] & 3 == 3 or ip6[0:2] & 0xff0 != 0",
    "ip[8] / ip[1] > 20",
    "ip[ip[1] * 20 : 2] = 80",
    "8 + -ip[9] = 2 ^ ip[1] & 0",
)


def packet(choose: random.Random) -> bytes:
    """Return a packet from its IP header on."""
    addresses = choose.sample((1, 2, 3), 2)
    ports = choose.sample((80, 443, 40000), 2)
    flags = choose.choice((0x02, 0x12, 0x10, 0x18, 0x11, 0x04, 0xC2))
    options = choose.choice((b"", b"\x01\x01\x08\x0a" + bytes(8), b"\x02\x04\x05\xb4"))
    header = struct.pack(
        ">HHIIHHHH",
        *ports,
        choose.getrandbits(32),
        choose.getrandbits(32),
        5 + len(options) // 4 << 12 | flags,
        choose.getrandbits(16),
        0,
        0,
    )
    tcp = header + options + choose.randbytes(choose.choice((0, 5, 100)))
    if choose.random() < 0.5:
        ends = b"".join(socket.inet_aton(f"10.0.0.{address}") for address in addresses)
        tos = choose.choice((0, 3))
        fields = (0x45, tos, 20 + len(tcp), 0, 0x4000, 64, socket.IPPROTO_TCP, 0)
        return struct.pack(">BBHHHBBH", *fields) + ends + tcp
    network = choose.choice(("fe80::", "fd00::"))
    pair = (socket.inet_pton(socket.AF_INET6, f"{network}{address}") for address in addresses)
    head = struct.pack(">IHBB", 6 << 28 | choose.choice((0, 1 << 20)), len(tcp), 6, 64)
    return head + b"".join(pair) + tcp


def rows(packets: list[bytes]) -> tuple[Numbers, Packets]:
    """Return how long packets are, and a table with a row for each."""
    lengths = np.array([len(packet) for packet in packets])
    table = np.zeros((len(packets), lengths.max()), np.uint8)
    for row, packet in zip(table, packets, strict=True):
        row[: len(packet)] = np.frombuffer(packet, np.uint8)
    return lengths, table


def matches(expression: str, packets: list[bytes]) -> Mask:
    """Return which packets our filter chooses."""
    lengths, table = rows(packets)
    return compiled(expression).matches(table, lengths, lengths)


def chosen_by_tcpdump(path: Path, expression: str) -> list[int]:
    """Return the times of the packets in a file that tcpdump chooses, in seconds."""
    command = [TCPDUMP, "-r", str(path), "-n", "-tt", expression]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return [int(line.partition(".")[0]) for line in run.stdout.splitlines() if line[0].isdigit()]


@pytest.fixture(scope="module")
def packets() -> list[bytes]:
    choose = random.Random(7)
    return [packet(choose) for _ in range(400)]


@pytest.fixture(scope="module")
def capture(packets: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the packets, each at the second of its number."""
    path = tmp_path_factory.mktemp("capture") / "packets.pcap"
    head = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, LINKTYPE_RAW)
    heads = (struct.pack("<IIII", at, 0, *[len(data)] * 2) for at, data in enumerate(packets))
    path.write_bytes(head + b"".join(h + data for h, data in zip(heads, packets, strict=True)))
    return path


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_tcpdump_chooses_the_same(expression: str, packets: list[bytes], capture: Path) -> None:
    ours = np.flatnonzero(matches(expression, packets)).tolist()
    assert ours == chosen_by_tcpdump(capture, expression)


def test_what_is_not_understood_is_said_with_the_reason() -> None:
    with pytest.raises(UsageError, match=r'"port http or" is not understood: .*syntax error'):
        compiled("port http or")
    with pytest.raises(UsageError, match="NUL"):
        compiled("port 80\0")
    with pytest.raises(UsageError, match="at most"):
        compiled("port 80 or " * 1000 + "port 81")


def test_a_packet_that_was_cut_before_a_byte_does_not_match() -> None:
    header = struct.pack(">BxH5xB10x", 0x45, 40, socket.IPPROTO_TCP)
    packet = header + struct.pack(">HH16x", 1, 80)
    table, whole = np.frombuffer(packet, np.uint8)[None], np.array([len(packet)])
    port = compiled("tcp[2:2] = 80")
    assert port.matches(table, whole, whole).all()
    assert not port.matches(table, np.array([23]), whole).any()


def test_without_libpcap_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture_filter, "SONAMES", ("libpcap-of-nobody.so",))
    capture_filter._libpcap.cache_clear()
    with pytest.raises(LibraryMissing, match="apt-get install libpcap"):
        compiled("port 80")
    capture_filter._libpcap.cache_clear()


def test_what_is_not_known_is_told_apart(packets: list[bytes], capture: Path) -> None:
    """Without payload: what tcpdump chooses by that of the whole packets, and more."""
    expression = "tcp[tcp[12] / 4 : 4] > 0x80000000"
    headers = [20 if packet[0] >> 4 == 4 else 40 for packet in packets]
    known = np.array([at + (p[at + 12] >> 4) * 4 for at, p in zip(headers, packets, strict=True)])
    lengths = np.array([len(packet) for packet in packets])
    table = np.zeros((len(packets), lengths.max()), np.uint8)
    for row, packet, size in zip(table, packets, known, strict=True):
        row[:size] = np.frombuffer(packet[:size], np.uint8)
    matched, unknown = compiled(expression).judge(table, known, lengths)
    assert not matched.any()
    assert set(chosen_by_tcpdump(capture, expression)) < set(np.flatnonzero(unknown).tolist())
    ipv4 = np.array([packet[0] >> 4 == 4 for packet in packets])  # tcp[] is only of that
    assert (unknown == ipv4 & (lengths - known >= 4)).all()


def without_options(packet: bytes) -> bytes:
    """Return a packet as it would be without the options of TCP."""
    tcp, version = (20, 4) if packet[0] >> 4 == 4 else (40, 6)
    size = (packet[tcp + 12] >> 4) * 4 - 20
    plain = bytearray(packet[: tcp + 20] + packet[tcp + 20 + size :])
    plain[tcp + 12] = 0x50 | packet[tcp + 12] & 0x0F
    place = 2 if version == 4 else 4
    plain[place : place + 2] = struct.pack(">H", len(plain) - (0 if version == 4 else 40))
    return bytes(plain)


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_nothing_is_made_of_options_that_are_not_known(
    expression: str, packets: list[bytes], capture: Path
) -> None:
    """What tcpdump chooses of whole packets is chosen or not judged, the rest not chosen."""
    lengths, table = rows([without_options(packet) for packet in packets])
    matched, unknown = compiled(expression).judge(table, lengths, lengths, with_options=False)
    ours, left = ({*np.flatnonzero(mask).tolist()} for mask in (matched, unknown & ~matched))
    assert ours <= {*chosen_by_tcpdump(capture, expression)} <= ours | left


@pytest.mark.parametrize(
    "view", [("replay", str(SAMPLE)), ("export", str(SAMPLE), "--to", "pcapng", "-o", os.devnull)]
)
def test_what_was_left_out_for_missing_options_is_said(view: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "tcprism", *view, "--capture-filter"]
    for expression, said in (("greater 100", True), ("tcp port 8080", False)):
        run = subprocess.run([*command, expression], capture_output=True, check=True)
        assert (b"segments, for without the options of their" in run.stderr) == said


def test_what_was_left_out_for_missing_payload_is_said() -> None:
    rows = rows_of("segment", [{"kind": EventKind.TRANSMIT}] * 3)
    part = with_options(Part(rows, np.zeros((3, OPTIONS_MAX), np.uint8)))
    stage = Captured(lambda _: (np.array([True, False, False]), np.array([False, True, False])))
    stage(Batch([part], 0))
    chosen, left_out = stage.account().remarks
    assert chosen == "--capture-filter chose 1 of 3 segments"
    assert left_out.startswith("--capture-filter left out 1 segments for payload")


RECORDED = "tcp[tcpflags] & (tcp-syn|tcp-fin) != 0 or src portrange 1-9999 and tcp[14:2] < 65"


def exported(path: Path, *arguments: str) -> Path:
    """Export the recording that ships with tcprism as packets of its segments."""
    command = [sys.executable, "-m", "tcprism", "export", str(SAMPLE), "--to", "pcapng"]
    chosen = ("--packets", "segments", "-o", str(path), *arguments)
    subprocess.run([*command, *chosen], check=True)
    return path


def test_an_export_has_the_packets_that_tcpdump_chooses(tmp_path: Path) -> None:
    whole = exported(tmp_path / "whole.pcapng")
    chosen = exported(tmp_path / "chosen.pcapng", "--capture-filter", RECORDED)
    columns = ("tcp.srcport", "tcp.seq_raw", "tcp.ack_raw", "tcp.len", "tcp.flags")
    tcpdump_chose = tmp_path / "tcpdump.pcap"
    subprocess.run([TCPDUMP, "-r", str(whole), "-w", str(tcpdump_chose), RECORDED], check=True)
    expected = fields(tcpdump_chose, *columns)
    assert 0 < len(expected) < len(fields(whole, "frame.number"))
    assert fields(chosen, *columns) == expected


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--capture-filter", "port 80 and"), "syntax error"),
        (("--capture-filter", "inbound and port 80"), "--kinds receive what arrives"),
        (("--capture-filter", "port 80", "--kinds", "send"), "send is none"),
        (("--capture-filter", "port 80", "--tls"), "leave --tls out"),
    ],
)
def test_what_cannot_be_chosen_is_refused(arguments: tuple[str, ...], reason: str) -> None:
    assert reason in refused("trace", *arguments)


@pytest.mark.parametrize(
    ("expression", "field"),
    [
        ("ip[8] < 5", "the time to live"),
        ("ip[8:2] = 0x4006", "the time to live"),
        ("ip6[7] > 1 and port 80", "the hop limit"),
        ("ip[1] & 0xfc = 0xb8", "the DSCP"),
        ("ip[1] >> 2 = 46", "the DSCP"),
        ("ip[0:4] = 0x45000034", "the DSCP"),
        ("ip[1] = 0 or ip6[1] & 0x30 = 0", "the DSCP"),
        ("ip6[0:4] & 0xfffff != 0", "the flow label"),
        ("ip[4:2] = 0 or ip6[4:2] = 0", "IP's identification"),
        ("ip[6] & 0x40 = 0", "IP's flags"),
        ("ip[10:2] != 0", "IP's checksum"),
        ("tcp[16:4] != 0", "TCP's checksum"),
        ("tcp[14:4] & 0xffff != 0", "TCP's checksum"),
        ("ip6[58:2] != 0", "the urgent pointer"),
        ("tcp[13] & 32 != 0 and tcp[18:2] > 0", "the urgent pointer"),
    ],
)
def test_a_field_that_is_not_recorded_is_refused(expression: str, field: str) -> None:
    """Whatever is loaded beside it, at which offsets RFC 791, 8200 and 9293 say."""
    with pytest.raises(UsageError, match=f": {field} is not recorded"):
        parse_capture_filter({"capture_filter": expression})


@pytest.mark.parametrize(
    "expression",
    [
        "ip6[4:2] > 100",  # there IPv4 has its identification
        "ip6[8:2] = 0xfd00 or ip6[10:2] = 0",  # the source; IPv4's time to live and checksum
        "ip[1] & 3 = 3",
        "ip6[0:4] >> 20 & 3 = 3",
        "tcp[14:4] & 0xffff0000 = 0",
        "ip[6:2] & 0x1fff = 0",
        "tcp[tcp[12] / 4 + 16 : 2] = 5",
        "port 80 or ip6",
    ],
)
def test_what_lies_beside_it_is_not_refused(expression: str) -> None:
    assert parse_capture_filter({"capture_filter": expression})


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("replay", "--as", "connections"), "--as connections shows none"),
        (("replay", "--as", "requests"), "--as requests shows none"),
        (("replay", "--kinds", "transmit,send"), "send is none"),
        (("export", "--to", "pcapng", "--packets", "messages"), "--packets messages has none"),
        (("export", "--to", "pcapng", "--packets", "plaintext"), "--packets plaintext has none"),
    ],
)
def test_a_view_without_segments_is_refused(arguments: tuple[str, ...], reason: str) -> None:
    view, *chosen = arguments
    written = ("-o", os.devnull, "--capture-filter", "port 8080")
    assert reason in refused(view, str(SAMPLE), *chosen, *written)


@pytest.mark.parametrize("kinds", ["all", "all,receive", "receive, all"])
def test_all_that_was_recorded_may_be_named(kinds: str) -> None:
    assert parse_capture_filter({"capture_filter": "port 80", "kinds": kinds})


def refused(*arguments: str) -> str:
    """Run a command that must be refused; return the reason."""
    run = subprocess.run(
        [sys.executable, "-m", "tcprism", *arguments], capture_output=True, text=True
    )
    assert run.returncode == 2
    assert not run.stdout
    return run.stderr


def test_how_many_were_chosen_is_said(tmp_path: Path) -> None:
    """Of all packets that the recording has, by tcpdump's count."""
    recorded = exported(tmp_path / "whole.pcapng")
    whole = len(chosen_by_tcpdump(recorded, "tcp"))
    acks = len(chosen_by_tcpdump(recorded, "tcp[13] = 16"))
    command = [sys.executable, "-m", "tcprism", "replay", str(SAMPLE), "--capture-filter"]
    run = subprocess.run([*command, "tcp[13] = 16"], capture_output=True, text=True, check=True)
    assert f"--capture-filter chose {acks} of {whole} segments\n" in run.stderr
