"""Ends that NAT gives to packets: against a capture behind the translation."""

import socket
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.capture import capturing
from tests.support.conversation import hang_up, receive
from tests.support.netns import Pair, joined
from tests.support.tracer import Event, tracing_all
from tests.support.tshark import fields

pytestmark = pytest.mark.native

# A service's address leads to a server (as kube-proxy does it), from another source port.
AT_CLIENT = """
table inet service {
    chain output {
        type nat hook output priority -100;
        ip daddr 10.96.0.1 tcp dport 443 dnat ip to 10.77.0.2:9443
        ip6 daddr fd96::1 tcp dport 443 dnat ip6 to [fd77::2]:9443
    }
    chain source {
        type nat hook postrouting priority 100;
        tcp dport { 9443, 9444 } masquerade to :20000-20999
    }
}
"""
AT_SERVER = """
table inet published {
    chain arrive {
        type nat hook prerouting priority -100;
        tcp dport 80 redirect to :8080
    }
}
"""


@dataclass(frozen=True)
class Case:
    """Where a client connects, and where the server listens."""

    name: str
    family: int
    address: str
    port: int
    listens: int
    at_client: bool = True  # NAT changes what leaves there
    at_server: bool = False


CASES = [
    Case("destination and source, IPv4", 4, "10.96.0.1", 443, 9443),
    Case("destination and source, IPv6", 6, "fd96::1", 443, 9443),
    Case("source alone", 4, "10.77.0.2", 9444, 9444),
    Case("redirected at the server", 6, "fd77::2", 80, 8080, at_client=False, at_server=True),
    Case("tracked, unchanged", 4, "10.77.0.2", 9555, 9555, at_client=False),
]
OLD = Case("older than the trace", 4, "10.96.0.1", 443, 9443)
Ends = tuple[str, int, str, int]


class Connection:
    """Both sockets of a case, whose data has the case's name."""

    def __init__(self, pair: Pair, case: Case) -> None:
        family = socket.AF_INET if case.family == 4 else socket.AF_INET6
        self.case = case
        self.client = pair.client.socket(family)
        with pair.server.socket(family) as listener:
            listener.bind(("", case.listens))
            listener.listen()
            self.client.connect((case.address, case.port))
            self.server, _ = listener.accept()
        names = (self.client, self.server)
        self.ends = [(*s.getsockname()[:2], *s.getpeername()[:2]) for s in names]

    def use(self) -> None:
        """Say the name there and back, twice, and hang up."""
        data = self.case.name.encode()
        for _ in range(2):
            for sender, receiver in ((self.client, self.server), (self.server, self.client)):
                sender.sendall(data)
                receive(receiver, len(data))
        hang_up(self.client, self.server)
        self.client.close()
        self.server.close()


@dataclass
class Run:
    """What was seen, and each case's sockets' ends, the client's first."""

    events: list[Event]
    few: list[Event]  # of the client, with a filter that OLD alone does not pass
    ours: Path
    ends: dict[Case, list[Ends]]
    wire: dict[Case, Ends]  # between the two, as the client's packets have them


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One run of every case, traced at both ends and captured between them."""
    directory = tmp_path_factory.mktemp("translate")
    with joined() as pair, ExitStack() as stack:
        pair.client.ip(
            *(f"route add default via {each}" for each in pair.server_addresses.values())
        )
        pair.client.run("nft", AT_CLIENT)
        pair.server.run("nft", AT_SERVER)
        connections = [Connection(pair, OLD)]
        netns = ["--netns", pair.client.path, "--netns", pair.server.path]
        runs = {
            directory / "pcapng": [*netns, "--format", "pcapng"],
            directory / "events": [*netns, "--kinds", "transmit,translate"],
            directory / "few": ["--kinds", "translate", *netns, "--family", "6"],
        }
        tracers = stack.enter_context(tracing_all(runs))
        with capturing(pair.client, "veth0", directory / "pcap", "10.77.0.2"):
            connections += [Connection(pair, case) for case in CASES]
            for connection in connections:
                connection.use()
            pair.await_closed()
        stack.close()
        assert not any(tracer.failure for tracer in tracers)
    ends = {connection.case: connection.ends for connection in connections}
    return Run(
        tracers[1].events, tracers[2].events, directory / "pcapng", ends, wire_ends(directory)
    )


PACKET = ("ip.src", "ipv6.src", "tcp.srcport", "ip.dst", "ipv6.dst", "tcp.dstport", "tcp.payload")


def wire_ends(directory: Path) -> dict[Case, Ends]:
    """Return what tshark says of the packet in which each client first says its name."""
    found: dict[Case, Ends] = {}
    names = {case.name.encode().hex(): case for case in (OLD, *CASES)}
    for v4, v6, port, to_v4, to_v6, to_port, payload in fields(directory / "pcap", *PACKET):
        if payload in names:
            ends = (v4 or v6, int(port), to_v4 or to_v6, int(to_port))
            found.setdefault(names[payload], ends)
    return found


def turned(ends: Ends) -> Ends:
    return (*ends[2:], *ends[:2])


def expected(run: Run) -> dict[Ends, Ends]:
    """Return the ends of each socket whose packets were rewritten here, and those on the wire."""
    told = {}
    for case, (client, server) in run.ends.items():
        if case.at_client:
            told[client] = run.wire[case]
        if case.at_server:
            told[server] = turned(run.wire[case])
    return told


def ends_of(event: Event, prefix: str = "") -> Ends:
    names = ("local_ip", "local_port", "remote_ip", "remote_port")
    ip, port, to_ip, to_port = (event[prefix + name] for name in names)
    return ip, port, to_ip, to_port


def test_the_wire_has_other_ends_than_the_sockets(run: Run) -> None:
    """So that the other tests are about something."""
    assert run.wire.keys() == run.ends.keys()
    for ours, theirs in expected(run).items():
        assert ours != theirs
    (same,) = (case for case in CASES if not case.at_client and not case.at_server)
    assert run.wire[same] == run.ends[same][0]


def test_each_translated_connection_is_told_of_once(run: Run) -> None:
    told = [event for event in run.events if event["kind"] == "translate"]
    assert len(told) == len(expected(run))
    assert {ends_of(e): ends_of(e, "translated_") for e in told} == expected(run)
    transmits = {(e["socket"], ends_of(e)) for e in run.events if e["kind"] == "transmit"}
    assert {(e["socket"], ends_of(e)) for e in told} <= transmits


def test_alone_and_with_a_filter(run: Run) -> None:
    assert {event["kind"] for event in run.few} == {"translate"}
    assert {ends_of(e) for e in run.few} == {e for e in expected(run) if ":" in e[0]}


def text_of(ends: Ends) -> str:
    said = (f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}" for ip, port in (ends[:2], ends[2:]))
    return " -> ".join(said)


def test_a_comment_in_the_capture(run: Run) -> None:
    """On one packet of the connection, the first that leaves; addresses stay the socket's."""
    sockets = {ends for both in run.ends.values() for ends in both}
    noted: dict[Ends, str] = {}
    first: dict[Ends, str] = {}
    for v4, v6, port, to_v4, to_v6, to_port, comment in fields(
        run.ours, *PACKET[:-1], "frame.comment"
    ):
        ends = (v4 or v6, int(port), to_v4 or to_v6, int(to_port))
        assert ends in sockets or turned(ends) in sockets
        if "translated by NAT to " in comment:
            assert ends not in noted
            noted[ends] = comment.partition("translated by NAT to ")[2]
        first.setdefault(ends, comment)
    assert noted == {ends: text_of(wire) for ends, wire in expected(run).items()}
    clients = [both[0] for case, both in run.ends.items() if case.at_client]
    assert all("translated by NAT" in first[ends] for ends in clients)
