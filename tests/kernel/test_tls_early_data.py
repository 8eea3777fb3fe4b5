"""Early data of a session that is resumed (RFC 8446, 2.3), beside what openssl says of it."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from tests.support.capture import capturing
from tests.support.netns import Netns
from tests.support.tls import DATA, certificate, records_on_the_wire
from tests.support.tls_dialog import PORT, Party
from tests.support.tls_seen import OVERHEAD, plaintext, records_of
from tests.support.tracer import tracing

pytestmark = pytest.mark.native

EARLY = b"earlier than the handshake\n"


def test_early_data(netns: Netns, tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    early, session = tmp_path / "early", tmp_path / "session"
    early.write_bytes(EARLY)
    to = ("s_client", "-connect", f"127.0.0.1:{PORT}", "-tls1_3")
    with (
        capturing(netns, "lo", tmp_path / "pcap", "127.0.0.1"),
        tracing(tmp_path / "out", "--tls", "--netns", netns.path, "--payload", "100") as tracer,
    ):
        server = Party(
            netns, "s_server", "-accept", f"127.0.0.1:{PORT}", "-cert", cert, "-key", key,
            "-early_data", "-tls1_3",
        )  # fmt: skip
        clients = []
        try:
            server.await_text("ACCEPT")
            clients.append(Party(netns, *to, "-sess_out", str(session)))
            clients[0].type("give me a ticket")
            server.await_text("ticket")
            server.type("here")
            clients[0].await_text("here")
            clients[0].type("Q")
            clients[0].process.wait(30)
            clients.append(Party(netns, *to, "-sess_in", str(session), "-early_data", str(early)))
            clients[1].await_text("Early data was accepted")
            server.await_text("End of early data")
            clients[1].type("later")
            server.await_text("later")
            server.type("thanks")
            clients[1].await_text("thanks")
        finally:
            for party in (*clients, server):
                party.end()
    wire = records_on_the_wire(tmp_path / "pcap")
    events = plaintext(tracer.events)
    port = max(event["local_port"] for event in events[-2:])
    of_second = [e for e in events if port in (e["local_port"], e["remote_port"])]
    told: dict[tuple[str, bool], list[bytes]] = {}
    for event in of_second:
        side = (event["kind"], event["local_port"] == PORT)
        told.setdefault(side, []).append(base64.b64decode(event["payload"]))
        assert event["socket_source"] == "call"
        assert set(records_of(event, wire)) == {DATA}
    assert told == {
        ("tls_send", False): [EARLY, b"later\n"],
        ("tls_recv", True): [EARLY, b"later\n"],
        ("tls_send", True): [b"thanks\n"],
        ("tls_recv", False): [b"thanks\n"],
    }
    (first, _) = (e for e in of_second if e["kind"] == "tls_send" and e["remote_port"] == PORT)
    assert first["encrypted_bytes"] == len(EARLY) + OVERHEAD
