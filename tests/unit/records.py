"""Records for tests, made field by field."""

from collections.abc import Sequence
from ipaddress import IPv6Address, ip_address
from typing import Any

import numpy as np

from tcprism.events import Part
from tcprism.events._wire import (
    DURATION_UNKNOWN,
    MESSAGE,
    REQUESTED_UNKNOWN,
    SEGMENT,
    EventKind,
)

Fields = dict[str, Any]


def packed(address: str) -> list[int]:
    """Return the 16 bytes of an address, an IPv4 address mapped into IPv6."""
    ip = ip_address(address)
    return list(ip.packed if isinstance(ip, IPv6Address) else bytes(10) + b"\xff\xff" + ip.packed)


def message_rows(events: Sequence[Fields]) -> Any:
    """Return message records: sends over IPv4 unless the fields say otherwise."""
    rows = np.zeros(len(events), MESSAGE)
    rows["kind"] = EventKind.SEND
    rows["requested"] = REQUESTED_UNKNOWN
    rows["duration_ns"] = DURATION_UNKNOWN
    return _filled(rows, events)


def segments(*events: Fields) -> Part:
    """Return a part of segments, transmissions over IPv4 unless the fields say otherwise."""
    rows = np.zeros(len(events), SEGMENT)
    rows["kind"] = EventKind.TRANSMIT
    return Part(_filled(rows, events))


def messages(*events: Fields, payload_class: int = 64) -> Part:
    """Return a part of messages; the field `payload` has the bytes that were captured."""
    payload = np.full((len(events), payload_class), 0xA5, np.uint8)  # old bytes, as in a ring
    fields = [dict(event) for event in events]
    for index, event in enumerate(fields):
        captured = event.pop("payload", b"")
        payload[index, : len(captured)] = list(captured)
        event.setdefault("payload_length", len(captured))
        event.setdefault("bytes", len(captured))
    return Part(message_rows(fields), payload)


def _filled(rows: Any, events: Sequence[Fields]) -> Any:
    rows["family"] = 4
    for index, event in enumerate(events):
        for name, value in event.items():
            is_address = name in ("local_ip", "remote_ip")
            rows[name][index] = packed(value) if is_address else value
    return rows
