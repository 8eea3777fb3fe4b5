"""Records for tests, made field by field."""

from collections.abc import Sequence
from ipaddress import IPv6Address, ip_address
from typing import Any

import numpy as np

from tcprism.events import Part
from tcprism.events import _wire as wire
from tcprism.events.kinds import RECORDS, numbers_of

Fields = dict[str, Any]

# What the kernel side writes where it does not know.
UNKNOWN: Fields = {
    "requested": wire.REQUESTED_UNKNOWN,
    "unread_us": wire.MICROSECONDS_UNKNOWN,
    "duration_ns": wire.DURATION_UNKNOWN,
    "unsent_us": wire.MICROSECONDS_UNKNOWN,
    "unacked_us": wire.MICROSECONDS_UNKNOWN,
    "rto_us": wire.MICROSECONDS_UNKNOWN,
    "rttvar_us": wire.MICROSECONDS_UNKNOWN,
    "reason": wire.REASON_UNKNOWN,
    "elapsed_ns": wire.ELAPSED_UNKNOWN,
    "reset_reason": wire.REASON_UNKNOWN,
    "delivery_rate": wire.RATE_UNKNOWN,
    "min_rtt_us": wire.MICROSECONDS_UNKNOWN,
    "srtt_us": wire.MICROSECONDS_UNKNOWN,
}


def packed(address: str) -> list[int]:
    """Return the 16 bytes of an address, an IPv4 address mapped into IPv6."""
    ip = ip_address(address)
    return list(ip.packed if isinstance(ip, IPv6Address) else bytes(10) + b"\xff\xff" + ip.packed)


def rows_of(family: str, events: Sequence[Fields]) -> Any:
    """Return records: of the family's first kind, over IPv4, unless the fields say otherwise."""
    rows = np.zeros(len(events), RECORDS[family])
    rows["kind"] = numbers_of(family)[0]
    rows["family"] = 4
    for name in UNKNOWN.keys() & set(rows.dtype.names or ()):
        rows[name] = UNKNOWN[name]
    for index, event in enumerate(events):
        for name, value in event.items():
            is_address = name.endswith(("local_ip", "remote_ip"))
            rows[name][index] = packed(value) if is_address else value
    return rows


def deliveries(*events: Fields) -> Part:
    """Return a part of deliveries."""
    return Part(rows_of("delivery", events))


def segments(*events: Fields) -> Part:
    """Return a part of segments, transmissions unless the fields say otherwise."""
    return Part(rows_of("segment", events))


def losses(*events: Fields) -> Part:
    """Return a part of losses, retransmissions unless the fields say otherwise."""
    return Part(rows_of("loss", events))


def connections(*events: Fields) -> Part:
    """Return a part of connection events, connects unless the fields say otherwise."""
    return Part(rows_of("connection", events))


def requests(*events: Fields) -> Part:
    """Return a part of requests."""
    return Part(rows_of("request", [{"protocol": b"http", **event} for event in events]))


def efforts(*events: Fields) -> Part:
    """Return a part of changes in how much is recorded."""
    return Part(rows_of("effort", events))


def snapshots(*events: Fields) -> Part:
    """Return a part of snapshots."""
    return Part(rows_of("snapshot", events))


def messages(*events: Fields, payload_class: int = 64, family: str = "message") -> Part:
    """Return a part of messages; the field `payload` has the bytes that were captured."""
    payload = np.full((len(events), payload_class), 0xA5, np.uint8)  # old bytes, as in a ring
    fields = [dict(event) for event in events]
    for index, event in enumerate(fields):
        captured = event.pop("payload", b"")
        payload[index, : len(captured)] = list(captured)
        event.setdefault("payload_length", len(captured))
        event.setdefault("bytes", len(captured))
    return Part(rows_of(family, fields), payload)


def tls_messages(*events: Fields, payload_class: int = 64) -> Part:
    """Return a part of TLS messages, with `payload` as messages() has."""
    return messages(*events, payload_class=payload_class, family="tls")


def translations(*events: Fields) -> Part:
    """Return a part of translations."""
    return Part(rows_of("translation", events))


MAKERS = {
    "message": messages,
    "delivery": deliveries,
    "segment": segments,
    "loss": losses,
    "connection": connections,
    "tls": tls_messages,
    "translation": translations,
}
