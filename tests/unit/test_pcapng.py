"""pcapng: byte by byte where a format is fixed, and as tshark and tcpdump read it."""

from __future__ import annotations

import io
import json
import shutil
import struct
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from tcprism.events import Batch
from tcprism.events._wire import Cause, EventKind
from tcprism.sinks.pcapng import Pcapng
from tcprism.sinks.pcapng.sink import Source
from tests.support.tshark import fields, marked, tshark, wrong

from .recordings import batches, random_part
from .records import losses, messages, segments, tls_messages

GOLDEN = Path(__file__).parent.parent / "golden"
CLOCK_OFFSET_NS = 1_767_225_600_000_000_000  # 2026-01-01T00:00:00Z
MILLISECOND = 1_000_000

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16

CLIENT: dict[str, Any] = {
    "pid": 812, "comm": b"curl", "netns": 4026531840, "socket": 1,
    "local_ip": "192.0.2.1", "local_port": 40000, "remote_ip": "192.0.2.9", "remote_port": 80,
}  # fmt: skip
SERVER: dict[str, Any] = {
    "pid": 99, "comm": b"nginx", "netns": 4026532200, "socket": 2,
    "local_ip": "192.0.2.9", "local_port": 80, "remote_ip": "192.0.2.1", "remote_port": 40000,
}  # fmt: skip


def segment(at: float, who: dict[str, Any], flags: int, seq: int, size: int, ack: int,
            **more: Any) -> dict[str, Any]:  # fmt: skip
    end = seq + size + bool(flags & SYN) + bool(flags & FIN)
    return who | {
        "ts_ns": int(at * MILLISECOND), "flags": flags, "seq": seq, "bytes": size,
        "end_seq": end, "ack": ack, "window": 500, "segs": 1,
    } | more  # fmt: skip


def conversation() -> Batch:
    """A request and an answer of three packets, the last of which is sent again."""
    again = segment(250, SERVER, PSH | ACK, 10_001, 1000, 118, kind=EventKind.RETRANSMIT,
                    cause=Cause.RTO)  # fmt: skip
    sent = [
        segment(0, CLIENT, SYN, 99, 0, 0),
        segment(1, SERVER, SYN | ACK, 8_000, 0, 100),
        segment(2, CLIENT, ACK, 100, 0, 8_001),
        segment(3, CLIENT, PSH | ACK, 100, 18, 8_001),
        segment(4, SERVER, ACK, 8_001, 0, 118),
        segment(5, SERVER, PSH | ACK, 8_001, 3000, 118, segs=3),
        segment(6, CLIENT, ACK, 118, 0, 10_001),
        segment(251, CLIENT, ACK, 118, 0, 11_001),
        segment(252, SERVER, FIN | ACK, 11_001, 0, 118),
        segment(253, CLIENT, FIN | ACK, 118, 0, 11_002),
        segment(254, SERVER, ACK, 11_002, 0, 119),
    ]
    failed = segment(240, SERVER, ACK, 10_001, 1000, 118, kind=EventKind.RETRANSMIT, error=-113)
    return Batch([segments(*sent), losses(failed, again)], CLOCK_OFFSET_NS)


def message(at: float, who: dict[str, Any], kind: EventKind, seq: int, data: bytes,
            **more: Any) -> dict[str, Any]:  # fmt: skip
    moment = int(at * MILLISECOND)
    return who | {"ts_ns": moment, "kind": kind, "seq": seq, "payload": data} | more


REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


def spoken() -> Batch:
    """The same kind of conversation as the processes see it: each message twice."""
    return Batch(
        [
            messages(
                message(1, CLIENT, EventKind.SEND, 100, REQUEST),
                message(2, SERVER, EventKind.RECV, 100, REQUEST),
                message(3, SERVER, EventKind.SEND, 8_001, ANSWER),
                message(3.5, CLIENT, EventKind.RECV, 8_001, ANSWER, flags=1),  # MSG_PEEK
                message(4, CLIENT, EventKind.RECV, 8_001, ANSWER),
                message(5, CLIENT, EventKind.SEND, 0, b"more", flags=0x8000),  # seq not known
                message(6, CLIENT, EventKind.SEND, 131, b"lost", error=-32, bytes=0),
            )
        ],
        CLOCK_OFFSET_NS,
    )


def packets(path: Path, batch: Batch, source: Source) -> Path:
    """Write a capture."""
    with path.open("wb") as file:
        sink = Pcapng(file, source)
        sink.write(batch)
        sink.close()
    return path


def golden(source: Source, path: Path) -> Path:
    """Write what is checked in."""
    return packets(path, {"segments": conversation, "messages": spoken}[source](), source)


@pytest.mark.parametrize("source", ["segments", "messages"])
def test_golden(source: Source, tmp_path: Path) -> None:
    """The bytes stay what tshark was asked about when they were checked in."""
    made = golden(source, tmp_path / "run.pcapng")
    assert made.read_bytes() == (GOLDEN / f"{source}.pcapng").read_bytes()


@pytest.mark.parametrize(("source", "retransmitted"), [("segments", ["10"]), ("messages", [])])
def test_golden_is_read_without_complaint(source: Source, retransmitted: list[str]) -> None:
    path = GOLDEN / f"{source}.pcapng"
    assert wrong(path) == []
    assert marked(path) == retransmitted


def test_blocks_by_hand(tmp_path: Path) -> None:
    """The first blocks, as the draft has them."""
    data = packets(tmp_path / "a.pcapng", conversation(), "segments").read_bytes()
    blocks = []
    while data:
        kind, total = struct.unpack_from("<II", data)
        assert struct.unpack_from("<I", data, total - 4) == (total,)
        blocks.append((kind, data[8 : total - 4]))
        data = data[total:]
    kinds = [kind for kind, _ in blocks]
    assert kinds[0] == 0x0A0D0D0A
    assert kinds.count(1) == 2  # an interface for each network namespace
    assert kinds.count(0x80000001) == 2  # a process each
    assert kinds.count(6) == 14
    first = next(body for kind, body in blocks if kind == 6)
    _, high, low, captured, length = struct.unpack_from("<5I", first)
    assert high << 32 | low == CLOCK_OFFSET_NS
    assert captured == length == 56
    assert first[20:40] == bytes.fromhex("0004 fffe 0000 0000000000000000 0800 45000028")


def test_segments_as_tshark_reads_them(tmp_path: Path) -> None:
    path = packets(tmp_path / "run.pcapng", conversation(), "segments")
    assert wrong(path) == []
    read = fields(path, "tcp.seq_raw", "tcp.len", "tcp.flags", "frame.len", "frame.cap_len")
    assert [(int(seq), int(size)) for seq, size, *_ in read] == [
        (99, 0), (8_000, 0), (100, 0), (100, 18), (8_001, 0),
        (8_001, 1000), (9_001, 1000), (10_001, 1000),
        (118, 0), (10_001, 1000), (118, 0), (11_001, 0), (118, 0), (11_002, 0),
    ]  # fmt: skip
    flags = [int(word, 16) for _, _, word, *_ in read]
    assert flags[5:8] == [ACK, ACK, PSH | ACK]  # PSH stands on the last packet of a segment
    assert [int(row[3]) for row in read][5:8] == [1056] * 3
    assert {int(row[4]) for row in read} == {56}


def test_payload_of_segments(tmp_path: Path) -> None:
    """HTTP is read off whole segments; of one of three packets, the bytes end in the second."""
    long = bytes(range(256)) * 12
    sent = [
        segment(1, CLIENT, PSH | ACK, 100, len(REQUEST), 8_001, payload=REQUEST),
        segment(2, SERVER, PSH | ACK, 8_001, len(ANSWER), 131, payload=ANSWER),
        segment(3, SERVER, ACK, 9_000, 3000, 131, segs=3, gso_size=1200, payload=long[:2000]),
    ]
    parts = [messages(each, payload_class=2048, family="segment") for each in sent]
    acked = segments(segment(4, CLIENT, ACK, 131, 0, 12_000))
    path = packets(tmp_path / "run.pcapng", Batch([*parts, acked]), "segments")
    assert wrong(path) == []
    assert fields(path, "http.response.code", only="http.response") == [["200"]]
    read = fields(path, "tcp.len", "frame.cap_len", "frame.len")[2:]
    assert [[int(number) for number in row] for row in read] == [
        [1200, 1256, 1256], [1200, 856, 1256], [600, 56, 656], [0, 56, 56],
    ]  # fmt: skip
    printed = tshark(path, "-x", "-Y", "tcp.len == 1200").split("\n\n")
    data = [
        bytes.fromhex("".join(line[6:53] for line in each.splitlines())) for each in printed if each
    ]
    assert b"".join(each[56:] for each in data) == long[:2000]


def test_a_scale_is_noted_on_the_first_packet_alone(tmp_path: Path) -> None:
    """Segments with payload are in a part of their own; a SYN with data says its scale itself."""
    known = 0x2000 | 7 << 9
    opened = messages(
        segment(1, CLIENT, SYN, 99, 5, 0, payload=b"early"),
        segment(3, SERVER, known | ACK, 8_001, 5, 105, payload=b"reply"),
        family="segment",
    )
    acks = segments(
        segment(2, CLIENT, known | ACK, 105, 0, 8_001), segment(4, SERVER, known | ACK, 1, 0, 1)
    )
    path = packets(tmp_path / "run.pcapng", Batch([acks, opened]), "segments")
    noted = [comment for (comment,) in fields(path, "frame.comment")]
    assert ["scale 7" in comment for comment in noted] == [False, False, True, False]


def test_a_refusal_has_no_scale(tmp_path: Path) -> None:
    """Its sender never had a connection."""
    refusal = segment(2, CLIENT, 0x2000 | RST | ACK, 0, 0, 100, kind=EventKind.RECEIVE)
    asked = Batch([segments(segment(1, CLIENT, SYN, 99, 0, 0), refusal)])
    path = packets(tmp_path / "run.pcapng", asked, "segments")
    read = fields(path, "tcp.flags.reset", "frame.comment")
    assert [reset for reset, _ in read] == ["0", "1"]
    assert not any("scale" in comment for _, comment in read)


@pytest.mark.parametrize("sees_it_leave", [False, True])
def test_a_handshake_between_ends_that_are_both_traced(tmp_path: Path, sees_it_leave: bool) -> None:
    """Its SYN-ACK has no connection's socket yet; fentry sees it only as it arrives."""
    came = {"kind": EventKind.RECEIVE}
    answer = segment(2, SERVER, SYN | ACK, 8_000, 0, 100)
    told = [
        segment(0, CLIENT, SYN, 99, 0, 0),
        segment(1, SERVER, SYN, 99, 0, 0, **came),
        *([answer] if sees_it_leave else []),
        segment(3, CLIENT, SYN | ACK, 8_000, 0, 100, **came),
        segment(4, CLIENT, ACK, 100, 0, 8_001),
        segment(5, SERVER, ACK, 100, 0, 8_001, **came),
        segment(6, SERVER, PSH | ACK, 8_001, 5, 100),
        segment(7, CLIENT, PSH | ACK, 8_001, 5, 100, **came),
    ]
    path = packets(tmp_path / "run.pcapng", Batch([segments(*told)]), "segments")
    read = fields(path, "tcp.srcport", "tcp.seq_raw", "tcp.flags")
    assert [(port, int(seq), int(flags, 16)) for port, seq, flags in read] == [
        ("40000", 99, SYN), ("80", 8_000, SYN | ACK), ("40000", 100, ACK),
        ("80", 8_001, PSH | ACK),
    ]  # fmt: skip


def test_the_true_retransmission_is_marked_and_nothing_else(tmp_path: Path) -> None:
    path = packets(tmp_path / "run.pcapng", conversation(), "segments")
    assert marked(path) == ["10"]
    assert fields(path, "frame.number", only="tcp.analysis.retransmission") == [["10"]]


def test_who_and_where(tmp_path: Path) -> None:
    path = packets(tmp_path / "run.pcapng", conversation(), "segments")
    names = ("frame.interface_name", "frame.comment", "frame.time_epoch")
    read = fields(path, *names)
    assert read[0] == ["netns 4026531840", "pid 812 comm curl", "1767225600.000000000"]
    assert read[9][:2] == ["netns 4026532200", "pid 99 comm nginx, cause rto"]
    assert read[6][1] == "pid 99 comm nginx, packet 2 of 3 of one segment (GSO)"


def test_messages_as_tshark_reads_them(tmp_path: Path) -> None:
    """One stream with both directions, once, in which HTTP is understood."""
    path = packets(tmp_path / "run.pcapng", spoken(), "messages")
    assert wrong(path) == []
    assert marked(path) == []
    names = ("tcp.srcport", "tcp.seq_raw", "tcp.ack_raw", "tcp.len")
    after = 8_001 + len(ANSWER)
    assert fields(path, *names) == [
        ["40000", "100", "0", str(len(REQUEST))],
        ["80", "8001", str(100 + len(REQUEST)), str(len(ANSWER))],
        ["40000", str(100 + len(REQUEST)), str(after), "4"],
    ]
    assert fields(path, "http.response.code", only="http.response") == [["200"]]
    followed = tshark(path, "-q", "-z", "follow,tcp,raw,0")
    assert REQUEST.hex() in followed
    assert ANSWER.hex() in followed


def test_plaintext_as_tshark_reads_it(tmp_path: Path) -> None:
    """HTTP is read as if nobody had encrypted it, and what has no connection is left out."""
    plain = tls_messages(
        message(1, CLIENT, EventKind.TLS_SEND, 100, REQUEST),
        message(2, SERVER, EventKind.TLS_RECV, 100, REQUEST),
        message(3, SERVER, EventKind.TLS_SEND, 8_001, ANSWER),
        message(4, CLIENT, EventKind.TLS_RECV, 8_001, ANSWER),
        {"kind": EventKind.TLS_SEND, "family": 0, "payload": b"whose?"},
    )
    path = packets(tmp_path / "run.pcapng", Batch([plain]), "plaintext")
    assert wrong(path) == []
    assert marked(path) == []
    assert fields(path, "tcp.seq_raw")[0] == ["1"]
    assert fields(path, "http.response.code", only="http.response") == [["200"]]
    followed = tshark(path, "-q", "-z", "follow,tcp,raw,0")
    assert REQUEST.hex() in followed
    assert ANSWER.hex() in followed
    assert b"whose?".hex() not in followed


def test_a_capture_of_plaintext_says_what_it_is(tmp_path: Path) -> None:
    """In the file's own comment, as capinfos prints it; a capture of messages has none."""
    if shutil.which("capinfos") is None:
        pytest.skip("needs capinfos")
    said: dict[Source, bool] = {}
    sources: tuple[Source, ...] = ("messages", "plaintext")
    for source in sources:
        path = packets(tmp_path / source, spoken(), source)
        done = subprocess.run(["capinfos", "-k", path], capture_output=True, text=True, check=True)
        said[source] = "no keys are needed" in done.stdout
    assert said == {"messages": False, "plaintext": True}


def test_plaintext_that_was_lost(tmp_path: Path) -> None:
    """The stream goes on behind it; a later session on the connection goes on behind the first."""
    sent = EventKind.TLS_SEND
    plain = tls_messages(
        message(1, CLIENT, sent, 100, b"first", session=1, stream_offset=0),
        message(2, CLIENT, sent, 900, b"third", session=1, stream_offset=11),
        message(3, CLIENT, sent, 800, b"second", session=1, stream_offset=5),  # of another thread
        message(4, CLIENT, sent, 1900, b"of the next", session=1, stream_offset=0),
        message(5, CLIENT, sent, 2900, b"again", session=2, stream_offset=700),
    )
    path = packets(tmp_path / "run.pcapng", Batch([plain]), "plaintext")
    assert wrong(path) == []
    assert [seq for (seq,) in fields(path, "tcp.seq_raw")] == ["1", "12", "6", "17", "28"]
    followed = tshark(path, "-q", "-z", "follow,tcp,raw,0").replace("\n", "")
    assert b"firstsecondthirdof the nextagain".hex() in followed


def test_a_long_message(tmp_path: Path) -> None:
    """More than an IP packet holds, of which the first bytes were captured."""
    sent = message(1, CLIENT, EventKind.SEND, 2**32 - 10, b"x" * 64, bytes=200_000)
    back = message(2, CLIENT, EventKind.RECV, 5, b"thanks")
    path = packets(tmp_path / "run.pcapng", Batch([messages(sent, back)]), "messages")
    assert wrong(path) == []
    assert marked(path) == []
    sizes = [int(size) for (size,) in fields(path, "tcp.len")]
    assert sum(sizes[:-1]) == 200_000
    assert fields(path, "tcp.ack_raw")[-1] == [str(200_000 - 10)]


def test_ipv6(tmp_path: Path) -> None:
    ends = {"local_ip": "2001:db8::1", "remote_ip": "2001:db8::2", "family": 6}
    sent = segments(segment(1, CLIENT | ends, SYN, 1, 0, 0), segment(2, CLIENT, SYN, 1, 0, 0))
    spoke = messages(message(1, CLIENT | ends, EventKind.SEND, 100, b"odd"))
    first = packets(tmp_path / "a.pcapng", Batch([sent]), "segments")
    second = packets(tmp_path / "b.pcapng", Batch([spoke]), "messages")
    assert wrong(first) == wrong(second) == []
    assert fields(first, "ipv6.src", "ip.src") == [["2001:db8::1", ""], ["", "192.0.2.1"]]
    assert fields(second, "tcp.payload") == [[b"odd".hex()]]


def test_tcpdump_reads_it(tmp_path: Path) -> None:
    if shutil.which("tcpdump") is None:
        pytest.skip("needs tcpdump")
    path = packets(tmp_path / "run.pcapng", conversation(), "segments")
    command = ["tcpdump", "-n", "-r", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert len(done.stdout.splitlines()) == 14
    assert "bad cksum" not in done.stdout


@settings(max_examples=25)
@given(batches())
def test_arbitrary_events(made: list[Batch]) -> None:
    """Whatever the records say, the file is a whole number of blocks."""
    sources: tuple[Source, ...] = ("segments", "messages", "plaintext")
    for source in sources:
        file = io.BytesIO()
        sink = Pcapng(file, source)
        for batch in made:
            sink.write(batch)
        sink.close()
        data = file.getvalue()
        while data:
            (total,) = struct.unpack_from("<I", data, 4)
            assert total % 4 == 0
            assert struct.unpack_from("<I", data, total - 4) == (total,)
            data = data[total:]


def test_arbitrary_headers_are_read(tmp_path: Path) -> None:
    """tshark finds nothing malformed in headers of random numbers."""
    part = random_part("segment", 200, 3)
    part.rows["flags"] &= 0x1FF
    part.rows["error"] = 0
    part.rows["bytes"] %= 100_000
    part.rows["segs"] %= 40
    path = packets(tmp_path / "run.pcapng", Batch([part]), "segments")
    assert wrong(path) == []


SAMPLE = str(resources.files("tcprism").joinpath("sample.tcpr"))


def converted(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tcprism", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_what_is_exported_becomes_packets(tmp_path: Path) -> None:
    """Messages alone as a stream with all their bytes, retransmissions alone as segments."""
    told = converted("replay", SAMPLE, "--kinds", "send", "--format", "json").stdout.splitlines()
    path = str(tmp_path / "messages.pcapng")
    assert not converted(
        "export", SAMPLE, "--to", "pcapng", "--kinds", "send,recv", "-o", path
    ).stderr
    sent = sum(json.loads(line)["bytes"] for line in told)
    assert sum(int(size) for (size,) in fields(Path(path), "tcp.len")) == sent > 0
    again = converted("replay", SAMPLE, "--kinds", "retransmit", "--format", "json").stdout
    chosen = ("replay", SAMPLE, "--as", "retransmits", "--format", "pcapng", "-o", path)
    assert converted(*chosen).returncode == 0
    numbers = [seq for (seq,) in fields(Path(path), "tcp.seq_raw")]
    assert numbers == [str(json.loads(line)["seq"]) for line in again.splitlines()]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--kinds", "connect,drop"), "pcapng of segments needs one of the kinds transmit,"),
        (("--as", "connections"), "pcapng of segments needs one of the kinds transmit,"),
        (("--as", "requests"), "pcapng of segments needs one of the kinds transmit,"),
        (("--kinds", "send", "--packets", "segments"), "needs one of the kinds transmit,"),
        (("--kinds", "transmit", "--packets", "messages"), "needs one of the kinds send, recv"),
    ],
)
def test_what_is_no_packet_is_refused(
    arguments: tuple[str, ...], reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "none.pcapng"
    run = converted("replay", SAMPLE, "--format", "pcapng", "-o", str(path), *arguments)
    assert run.returncode == 2
    assert reason in run.stderr
    assert not path.exists()
