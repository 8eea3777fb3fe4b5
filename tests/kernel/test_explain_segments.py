"""What `tcprism explain` proves by segments: against tshark's view of what was on the wire.

Each scenario has a port, and a wire that does to it what the scenario is about.
"""

import json
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.capture import Packet, capturing
from tests.support.conversation import bulk, drain, fill, ping_pong, receive
from tests.support.tracer import PATIENCE, TCPRISM
from tests.support.tshark import tshark
from tests.support.wire import Rule, Wire, deliver, wired

pytestmark = pytest.mark.native

CLOSED, LATE, OVERTAKEN, MARKED, LOST_ACKS, HEALTHY, ALIVE = range(5811, 5818)
UNCONNECTED = 5899
SEEN = {
    "window-closed", "late-acks-here", "late-acks", "acks-lost", "reordering", "congestion-marks",
    "keepalives",
}  # fmt: skip
LATE_S = 0.020
TRIP = 0.080  # of what is overtaken: a round trip in which nothing is thought lost yet
PIECE = 20  # so few that a segment's checksum is known as it arrives

Socket = socket.socket
Verdicts = dict[str, dict[str, Any]]


def await_true(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def acknowledged(end: Socket) -> bool:
    """Tell whether all that was sent is (tcpi_unacked of struct tcp_info)."""
    info = end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    return int.from_bytes(info[24:28], "little") == 0


def closed_window(wire: Wire, client: Socket, server: Socket) -> None:
    client.setblocking(False)
    fill(client)
    before = wire.client.extended_counters()["TCPWinProbe"]
    await_true(lambda: wire.client.extended_counters()["TCPWinProbe"] > before)
    drain(client, server)


def late_acknowledgements(_wire: Wire, client: Socket, server: Socket) -> None:
    """At first the server acknowledges at once, then three times when its timer is due."""
    for number in range(4):
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, number == 0)
        client.sendall(b"x" * PIECE)
        receive(server, PIECE)
        await_true(lambda: acknowledged(client))


def hold(_packet: Packet, to_server: bool) -> float | None:
    """Have a long round trip from the first packet on: then little is thought lost early."""
    return TRIP if to_server else 0.0


def overtake(nth: int) -> Rule:
    """Have the segment behind the nth one, which is sent 2 ms later, overtake it."""
    known: list[int] = []

    def rule(packet: Packet, to_server: bool) -> float | None:
        if not to_server or not packet.payload:
            return hold(packet, to_server)
        known.append(packet.seq)
        return TRIP + 0.005 * (len(known) == nth)

    return rule


def overtaking(wire: Wire, client: Socket, server: Socket) -> None:
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    wire.rule = overtake(3)
    for _ in range(4):
        client.sendall(b"x" * PIECE)
        time.sleep(0.002)  # time stamps are milliseconds
    receive(server, 4 * PIECE)
    await_true(lambda: acknowledged(client))
    wire.rule = deliver


def marking(wire: Wire, client: Socket, server: Socket) -> None:
    wire.client.run(
        "nft",
        "add table ip marks;"
        "add chain ip marks out { type filter hook postrouting priority 0; };"
        f"add rule ip marks out tcp dport {MARKED} ip ecn ect0 numgen inc mod 4 == 1 ip ecn set ce",
    )
    for _ in range(8):
        client.sendall(b"x" * 10 * 1400)
        receive(server, 10 * 1400)


def keeping_alive(wire: Wire, client: Socket, server: Socket) -> None:
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 60)  # none for a late answer
    client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    client.sendall(b"x" * PIECE)
    receive(server, PIECE)
    await_true(lambda: acknowledged(client))
    passed = len(wire.passed)
    await_true(lambda: any(p.source_port == ALIVE for p in wire.passed[passed:]))
    client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 0)
    await_true(lambda: is_answered(wire.passed[passed:]))


def is_answered(packets: list[Packet]) -> bool:
    keepalives = [p for p in packets if ALIVE in (p.source_port, p.destination_port)]
    return 2 * sum(p.source_port == ALIVE for p in keepalives) == len(keepalives)


def losing_acknowledgements(wire: Wire, client: Socket, server: Socket) -> None:
    """Lose what only acknowledges, until data comes again, and the answer to that passes."""
    sent: list[int] = []

    def rule(packet: Packet, to_server: bool) -> float | None:
        if to_server and packet.payload:
            sent.append(packet.seq)
        lost = not to_server and packet.flags == "ACK" and sent and sent[-1] not in sent[:-1]
        return None if lost else 0.0

    wire.rule = rule
    client.sendall(b"x" * PIECE)
    receive(server, PIECE)
    await_true(lambda: acknowledged(client))
    wire.rule = deliver


def healthy(_wire: Wire, client: Socket, server: Socket) -> None:
    ping_pong(client, server)
    bulk(client, server)


Play = Callable[[Wire, Socket, Socket], None]
SCENARIOS: dict[int, Play] = {
    CLOSED: closed_window,
    LATE: late_acknowledgements,
    OVERTAKEN: overtaking,
    MARKED: marking,
    LOST_ACKS: losing_acknowledgements,
    HEALTHY: healthy,
    ALIVE: keeping_alive,  # long enough for snapshots of the others
}


FIELDS = (
    "frame.time_epoch", "tcp.srcport", "tcp.dstport", "tcp.seq", "tcp.len", "ip.dsfield.ecn",
    "tcp.flags.syn", "tcp.flags.ece", "tcp.flags.cwr", "tcp.window_size_value",
    "tcp.options.timestamp.tsval", "tcp.analysis.ack_rtt", "tcp.analysis.keep_alive",
    "tcp.analysis.keep_alive_ack", "tcp.analysis.zero_window_probe",
    "tcp.analysis.spurious_retransmission",
)  # fmt: skip
Frame = dict[str, str]


def read(capture: Path) -> list[Frame]:
    """Return packets as tshark reads them, each field by the last part of its name."""
    chosen = [word for name in FIELDS for word in ("-e", name)]
    names = [name.rsplit(".", 1)[-1] for name in FIELDS]
    told = tshark(capture, "-Y", "tcp", "-T", "fields", *chosen)
    return [dict(zip(names, line.split("\t"), strict=True)) for line in told.splitlines()]


@dataclass
class Run:
    """What `explain` said of each end, and what was on the wire there."""

    explained: list[dict[str, Any]]
    captured: dict[str, list[Frame]]
    ports: dict[int, int]

    def verdicts(self, port: int, side: str) -> Verdicts:
        name = "remote_port" if side == "client" else "local_port"
        (one,) = [e for e in self.explained if e.get(name) == self.ports[port]]
        return {verdict["rule"]: verdict for verdict in one["verdicts"]}

    def proof(self, port: int, side: str, rule: str) -> str:
        found = self.verdicts(port, side)
        assert rule in found, found
        assert not found[rule]["accuses"]
        return str(found[rule]["proof"])

    def sent(self, port: int, by: str, seen_at: str) -> list[Frame]:
        """Return a scenario's packets that one end sent, as captured at one."""
        name = "dstport" if by == "client" else "srcport"
        return [frame for frame in self.captured[seen_at] if frame[name] == str(self.ports[port])]

    def late(self, port: int, side: str) -> list[float]:
        """Return how long ACKs of the server took that came late, seen from one side."""
        took = [float(f["ack_rtt"] or 0) for f in self.sent(port, "server", side)]
        return [seconds for seconds in took if seconds >= LATE_S]

    def in_vain(self, port: int) -> list[Frame]:
        """Return what the client sent again although the server had acknowledged it."""
        sent = self.sent(port, "client", "server")
        return [frame for frame in sent if frame["spurious_retransmission"]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Explain all scenarios at once; the connections stay open until that has ended."""
    directory = tmp_path_factory.mktemp("segments")
    with wired() as wire, ExitStack() as stack:
        unconnected = stack.enter_context(wire.server.socket())
        unconnected.bind(("10.77.0.2", UNCONNECTED))
        captures = {side: directory / side for side in ("client", "server")}
        for end in (wire.client, wire.server):
            end.configure("net/ipv4/tcp_ecn", "1")
        with (
            capturing(wire.client, "veth0", captures["client"], "10.77.0.2"),
            capturing(wire.server, "veth0", captures["server"], "10.77.0.1"),
        ):
            explained, ports = explain_while(wire, stack)
    return Run(explained, {side: read(path) for side, path in captures.items()}, ports)


def came_off(wire: Wire, name: int, stack: ExitStack, play: Play, port: int) -> bool:
    """Play a scenario; a machine that stalls may spoil one, which the kernel's counters tell."""
    wire.rule = hold if name == OVERTAKEN else deliver
    client, server = wire.connection(4, port, receive_buffer=4096 if name == CLOSED else 0)
    for end in (client, server):
        stack.enter_context(closing(end))
    before = wire.client.tcp_counters()["RetransSegs"]
    early = wire.server.extended_counters()["TCPOFOQueue"]
    play(wire, client, server)
    again = wire.client.tcp_counters()["RetransSegs"] - before
    return name != OVERTAKEN or (
        again == 0 and wire.server.extended_counters()["TCPOFOQueue"] == early + 1
    )


def explain_while(wire: Wire, stack: ExitStack) -> tuple[list[dict[str, Any]], dict[int, int]]:
    """Return what `explain` says once all scenarios were played, and at which ports they were."""
    ports: dict[int, int] = {}
    chosen = [word for end in (wire.client, wire.server) for word in ("--netns", end.path)]
    command = [TCPRISM, "explain", *chosen, "--duration", str(PATIENCE), "--format", "json"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stderr
        assert process.stderr.readline().startswith("watching")
        for port, play in SCENARIOS.items():
            for attempt in range(5):
                ports[port] = port + 100 * attempt
                if came_off(wire, port, stack, play, ports[port]):
                    break
        process.send_signal(signal.SIGINT)
        shown, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    return [json.loads(line) for line in shown.splitlines()], ports


UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


def times(proof: str) -> list[float]:
    """Return the durations in a text, seconds."""
    found = re.findall(r"(\d+(?:\.\d+)?) (us|ms|s)\b", proof)
    return [float(number) * UNITS[unit] for number, unit in found]


def about(seconds: float) -> Any:
    """Three digits are shown, and on a busy machine a packet is captured before TCP gets it."""
    return pytest.approx(seconds, rel=0.02, abs=0.02)


def test_a_socket_without_a_peer_is_no_connection(run: Run) -> None:
    assert all(one["local_port"] != UNCONNECTED for one in run.explained)


def test_the_peers_window_was_closed(run: Run) -> None:
    """From a zero that arrives to the next window that is none."""
    closed: list[float] = []
    since = 0.0
    for frame in run.sent(CLOSED, "server", "client"):
        moment = float(frame["time_epoch"])
        if frame["window_size_value"] == "0":
            since = since or moment
        elif since:
            closed.append(moment - since)
            since = 0.0
    assert closed
    assert not since
    proof = run.proof(CLOSED, "client", "window-closed")
    assert proof.startswith(f"zero windows arrived {len(closed)} time")
    assert times(proof)[0] == about(sum(closed))
    assert "window-closed" not in run.verdicts(CLOSED, "server")


@pytest.mark.parametrize(("side", "rule"), [("server", "late-acks-here"), ("client", "late-acks")])
def test_late_acknowledgements(run: Run, side: str, rule: str) -> None:
    took = run.late(LATE, side)
    proof = run.proof(LATE, side, rule)
    assert len(took) >= 3  # a wire that stalls makes the first one late, too
    assert proof.split()[0] == str(len(took))
    assert max(took) in map(about, times(proof))


def test_overtaken_segments(run: Run) -> None:
    """The order at one end against that at the other; what comes again is no overtaken one."""
    sent, came = (
        [(f["seq"], f["tsval"]) for f in run.sent(OVERTAKEN, "client", side) if f["len"] != "0"]
        for side in ("client", "server")
    )
    overtaken, latest, known = 0, -1, set()
    for seq, stamp in came:
        place = sent.index((seq, stamp))
        overtaken += place < latest and seq not in known
        latest = max(latest, place)
        known.add(seq)
    assert overtaken == 1
    assert len(sent) == 4
    proof = run.proof(OVERTAKEN, "server", "reordering")
    assert proof == (
        f"1 of {len(came)} data segments that arrived had been sent before one that came earlier"
    )
    proof = run.proof(OVERTAKEN, "client", "reordering")
    assert proof == "on the way out 1 time: SACK told of later bytes, and none was sent again"


def test_marks_of_routers(run: Run) -> None:
    came, went = (run.sent(MARKED, by, "server") for by in ("client", "server"))
    marked = sum(frame["ecn"] == "3" for frame in came)
    assert marked > 1
    assert run.proof(MARKED, "server", "congestion-marks") == (
        f"{marked} segments arrived with CE; {flagged(went, 'ece')} echoed with ECE,"
        f" {flagged(came, 'cwr')} confirmed with CWR"
    )
    echoed = flagged(run.sent(MARKED, "server", "client"), "ece")
    confirmed = flagged(run.sent(MARKED, "client", "client"), "cwr")
    proof = run.proof(MARKED, "client", "congestion-marks")
    assert proof == f"{echoed} came back with ECE, {confirmed} confirmed with CWR"


def flagged(frames: list[Frame], flag: str) -> int:
    """Count packets with a flag; that of a SYN means something else."""
    return sum(frame[flag] == "1" and frame["syn"] == "0" for frame in frames)


def test_keepalives(run: Run) -> None:
    sent, answered = (
        [float(f["time_epoch"]) for f in run.sent(ALIVE, by, "client") if f[name]]
        for by, name in (("client", "keep_alive"), ("server", "keep_alive_ack"))
    )
    assert len(sent) == len(answered) >= 1
    slowest = max(end - begin for begin, end in zip(sent, answered, strict=True))
    proof = run.proof(ALIVE, "client", "keepalives")
    assert proof.startswith(f"{len(sent)} sent, {len(sent)} answered, the slowest after ")
    assert times(proof)[0] == about(slowest)
    proof = run.proof(ALIVE, "server", "keepalives")
    assert proof.startswith(f"{len(sent)} came from the peer, and were answered within ")


def test_a_probe_of_a_closed_window_is_no_keepalive(run: Run) -> None:
    """They look the same: tshark calls both keepalives."""
    sent = run.sent(CLOSED, "client", "server")
    assert any(frame["keep_alive"] or frame["zero_window_probe"] for frame in sent)
    for side in ("client", "server"):
        assert "keepalives" not in run.verdicts(CLOSED, side)


def test_what_was_sent_again_in_vain(run: Run) -> None:
    again = run.in_vain(LOST_ACKS)
    assert again
    proof = run.proof(LOST_ACKS, "server", "acks-lost")
    segments = "segment" if len(again) == 1 else "segments"
    assert proof.startswith(f"{len(again)} {segments} ({len(again) * PIECE} B) came again")


@pytest.mark.parametrize("port", SCENARIOS)
def test_nothing_else_is_told(run: Run, port: int) -> None:
    """Each scenario has what it is about, a healthy connection nothing.

    On a busy machine more may happen to any: then tshark sees it, too.
    """
    own = {
        CLOSED: {"window-closed"},
        OVERTAKEN: {"reordering"},
        MARKED: {"congestion-marks"},
        ALIVE: {"keepalives"},
    }
    allowed = own.get(port, set())
    for side in ("client", "server"):
        frames = [*run.sent(port, "client", side), *run.sent(port, "server", side)]
        if any(float(frame["ack_rtt"] or 0) >= LATE_S for frame in frames):
            allowed = allowed | {"late-acks", "late-acks-here"}
        if run.in_vain(port):
            allowed = allowed | {"acks-lost"}
        if any(f["window_size_value"] == "0" for f in run.sent(port, "server", side)):
            allowed = allowed | {"window-closed"}
        assert not run.verdicts(port, side).keys() & SEEN - allowed
