"""Sessions that are resumed, with early data (RFC 8446, 2.3), beside what openssl says of them."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from tests.support.capture import capturing
from tests.support.netns import PATIENCE, Netns
from tests.support.tls import DATA, certificate, records_on_the_wire
from tests.support.tls_dialog import PORT, Party
from tests.support.tls_seen import OVERHEAD, plaintext, records_of
from tests.support.tracer import tracing

pytestmark = pytest.mark.native

OVERHEAD_12 = 29  # of a record of TLS 1.2 with AES-GCM: header, nonce, tag
EARLY = b"earlier than the handshake\n"


@pytest.mark.parametrize("version", ["tls1_2", "tls1_3"])
def test_a_session_that_is_resumed(netns: Netns, tmp_path: Path, version: str) -> None:
    has_early_data = version == "tls1_3"
    cert, key = certificate(tmp_path)
    early, session = tmp_path / "early", tmp_path / "session"
    early.write_bytes(EARLY)
    to = ("s_client", "-connect", f"127.0.0.1:{PORT}", f"-{version}")
    with (
        capturing(netns, "lo", tmp_path / "pcap", "127.0.0.1"),
        tracing(tmp_path / "out", "--tls", "--netns", netns.path, "--payload", "100") as tracer,
    ):
        server = Party(
            netns, "s_server", "-accept", f"127.0.0.1:{PORT}", "-cert", cert, "-key", key,
            *(["-early_data"] if has_early_data else []),
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
            clients[0].process.wait(PATIENCE)
            given = ("-early_data", str(early)) if has_early_data else ()
            clients.append(Party(netns, *to, "-sess_in", str(session), *given))
            if has_early_data:
                clients[1].await_text("Early data was accepted")
                server.await_text("End of early data")
            else:
                clients[1].await_text("Reused, TLSv1.2")
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
    asked = [EARLY, b"later\n"] if has_early_data else [b"later\n"]
    assert told == {
        ("tls_send", False): asked,
        ("tls_recv", True): asked,
        ("tls_send", True): [b"thanks\n"],
        ("tls_recv", False): [b"thanks\n"],
    }
    first = next(e for e in of_second if e["kind"] == "tls_send" and e["remote_port"] == PORT)
    overhead = OVERHEAD if has_early_data else OVERHEAD_12
    assert first["encrypted_bytes"] == len(asked[0]) + overhead
