"""Plaintext of openssl's client and server, whose sessions do what sessions can do."""

import base64
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.support.capture import capturing
from tests.support.netns import namespace
from tests.support.tls import DATA, Records, certificate, records_on_the_wire
from tests.support.tls_dialog import PORT, Dialog, dialog
from tests.support.tls_seen import OVERHEAD, plaintext, records_of
from tests.support.tracer import Event, tracing

pytestmark = pytest.mark.native

OVERHEAD_12 = 29  # of a record of TLS 1.2 with AES-GCM: header, nonce, tag


def talk(told: Dialog) -> None:
    told.exchange()
    told.exchange()


def renegotiate(told: Dialog) -> None:
    told.exchange()
    told.client.type("R")
    told.client.await_text("RENEGOTIATING")
    told.exchange()
    told.exchange()


def update_keys(told: Dialog) -> None:
    told.exchange()
    told.client.type("k")
    told.client.await_text("KEYUPDATE")
    told.exchange()
    told.client.type("K")
    told.client.await_text("KEYUPDATE")
    told.exchange()
    told.exchange()


@dataclass
class Session:
    """Options of both, and what they do."""

    server: tuple[str, ...] = ()
    client: tuple[str, ...] = ()
    course: Callable[[Dialog], None] = talk


@dataclass
class Seen:
    """What was seen of one session: by both parties, by tcprism, by tcpdump."""

    said: dict[str, list[str]]
    events: list[Event]
    wire: dict[tuple[int, int], Records]


SESSIONS = {
    "TLS 1.2": Session(client=("-tls1_2",)),
    "TLS 1.3": Session(client=("-tls1_3",)),
    "renegotiated": Session(("-client_renegotiation",), ("-tls1_2",), renegotiate),
    "keys updated": Session(client=("-tls1_3",), course=update_keys),
    "client certificate": Session(
        ("-Verify", "1", "-CAfile", "{cert}"), ("-cert", "{cert}", "-key", "{key}")
    ),
}


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Seen]:
    """What is seen of one session after the other, by one tracer: it takes seconds to start."""
    folder = tmp_path_factory.mktemp("sessions")
    files = certificate(folder)
    names = {"cert": files[0], "key": files[1]}
    said = {}
    with namespace() as netns:
        with (
            capturing(netns, "lo", folder / "pcap", "127.0.0.1"),
            tracing(folder / "out", "--tls", "--netns", netns.path, "--payload", "100") as tracer,
        ):
            for name, one in SESSIONS.items():
                server, client = ([w.format(**names) for w in o] for o in (one.server, one.client))
                with dialog(netns, files, server, client) as told:
                    one.course(told)
                said[name] = told.said
        events = plaintext(tracer.events)
        wire = records_on_the_wire(folder / "pcap")
    ports = dict.fromkeys(max(e["local_port"], e["remote_port"]) for e in events)
    assert len(ports) == len(SESSIONS)
    return {
        name: Seen(
            said[name],
            [event for event in events if port in (event["local_port"], event["remote_port"])],
            wire,
        )
        for name, port in zip(SESSIONS, ports, strict=True)
    }


def written(events: list[Event]) -> list[str]:
    return [base64.b64decode(event["payload"]).decode() for event in events]


@pytest.mark.parametrize("name", SESSIONS)
def test_what_both_have_said(sessions: dict[str, Seen], name: str) -> None:
    seen = sessions[name]
    for who, at_server in (("client", False), ("server", True)):
        for kind, sent in (("tls_send", True), ("tls_recv", False)):
            here = [
                event for event in seen.events
                if event["kind"] == kind and (event["local_port"] == PORT) == (at_server == sent)
            ]  # fmt: skip
            assert written(here) == seen.said[who], (who, kind)


@pytest.mark.parametrize("name", SESSIONS)
def test_the_records_that_carry_it(sessions: dict[str, Seen], name: str) -> None:
    """A write may have to end a handshake first, or to update keys: with records of data, too."""
    seen = sessions[name]
    overhead = OVERHEAD_12 if "-tls1_2" in SESSIONS[name].client else OVERHEAD
    for event in seen.events:
        types = records_of(event, seen.wire)
        if event["kind"] == "tls_recv" or overhead == OVERHEAD_12:
            assert types == [DATA]
            assert event["encrypted_bytes"] == event["bytes"] + overhead
        else:
            assert set(types) == {DATA}
