"""Messages as packets: a TCP stream made from what processes sent and received.

A connection is shown as that process saw it which is seen first: what its peer sees of the same
bytes, where both are on this machine, would look like retransmissions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcprism.events import Batch, Part
from tcprism.events._wire import MessageFlag
from tcprism.events.columns import BY_NAME
from tcprism.events.kinds import SENDS
from tcprism.events.part import Rows, joined_rows
from tcprism.events.requests import NAMES
from tcprism.sinks.pcapng.packets import (
    ACK,
    LARGEST,
    PSH,
    WINDOW_UNKNOWN,
    Packets,
    heads,
    no_options,
    request_notes,
)

_STREAMS = 1 << 16  # remembered at most


@dataclass(slots=True)
class _Stream:
    """A connection: the end whose view is shown, and the next sequence number of either end."""

    view: bytes
    next_seq: dict[bool, int] = field(default_factory=dict)
    plaintext: dict[bool, _Plaintext] = field(default_factory=dict)

    def numbered(self, place: int, sent: bool, first: int, end: int) -> _Number:
        """Return the number of a message; what the direction sends next begins at `end`."""
        number = _Number(place, first % (1 << 32), self.next_seq.get(not sent))
        self.next_seq[sent] = end % (1 << 32)
        return number


@dataclass(slots=True)
class _Plaintext:
    """A direction of plaintext: its latest session, whose first byte is `first`, and its end."""

    session: int
    first: int = 1
    end: int = 1
    begun: bool = False

    def place(self, session: int, offset: int, size: int) -> int:
        """Return the number of some plaintext by its offset, which counts what was lost, too.

        The next session on the connection, perhaps with the same address, goes on behind this one.
        """
        if session != self.session or (self.begun and offset == 0):
            self.session, self.first = session, self.end - offset
        self.begun = self.begun or offset == 0
        first = self.first + offset
        self.end = max(self.end, first + size)
        return first


@dataclass(frozen=True, slots=True)
class _Number:
    """A message that is shown: its place in the part, its sequence and acknowledgement number."""

    place: int
    seq: int
    ack: int | None


class Messages:
    """Makes packets of sends and receives, with the sequence numbers that the bytes had.

    Of the family tls, these are plaintext: a stream of its own, whose bytes are numbered from 1,
    those of events that were lost too.
    """

    def __init__(self, family: str = "message") -> None:
        self._family = family
        self._streams: dict[tuple[bytes, bytes], _Stream] = {}

    def __call__(self, batch: Batch) -> Packets | None:
        """Return the packets of a batch in time order, None when there are none."""
        whole = _in_one(batch, self._family)
        numbers = [] if whole is None else list(self._number(whole))
        return _packets(whole, numbers) if whole is not None and numbers else None

    def _number(self, part: Part) -> Iterable[_Number]:
        """Number the messages in turn, leaving out those that the other end has shown."""
        rows = part.rows
        if self._family == "tls":
            yield from self._number_plaintext(rows)
            return
        unknown = BY_NAME["seq"].mask(part).tolist()
        facts = (*_facts(rows), rows["seq"].tolist())
        for place, (local, remote, sent, size, seq) in enumerate(zip(*facts, strict=True)):
            stream = self._stream(local, remote)
            if stream.view == local:
                first = stream.next_seq.get(sent, 0) if unknown[place] else seq
                yield stream.numbered(place, sent, first, first + size)

    def _number_plaintext(self, rows: Rows) -> Iterable[_Number]:
        facts = (*_facts(rows), rows["session"].tolist(), rows["stream_offset"].tolist())
        for place, (local, remote, sent, size, session, at) in enumerate(zip(*facts, strict=True)):
            stream = self._stream(local, remote)
            if stream.view == local:
                plaintext = stream.plaintext.setdefault(sent, _Plaintext(session))
                first = plaintext.place(session, at, size)
                yield stream.numbered(place, sent, first, plaintext.end)

    def _stream(self, local: bytes, remote: bytes) -> _Stream:
        key = (min(local, remote), max(local, remote))
        stream = self._streams.get(key)
        if stream is None:
            if len(self._streams) >= _STREAMS:
                self._streams.clear()
            stream = self._streams[key] = _Stream(local)
        return stream


def _in_one(batch: Batch, family: str) -> Part | None:
    """Return the messages that move bytes, in time order; None when there are none."""
    parts = [part.take(_moves_bytes(part)) for part in batch.parts if part.family == family]
    parts = [part for part in parts if len(part)]
    if not parts:
        return None
    width = max(0 if part.payload is None else part.payload.shape[1] for part in parts)
    payload = np.concatenate([_padded(part, width) for part in parts])
    rows = joined_rows(parts)
    rows["payload_length"] = np.concatenate([part.payload_lengths() for part in parts])
    names = {NAMES: _names(parts)} if any(NAMES in part.derived for part in parts) else {}
    return Part(rows, payload, names).take(Batch(parts).permutation)


def _names(parts: Sequence[Part]) -> np.ma.MaskedArray[Any, Any]:
    """Return which requests each message carries."""
    none = [np.ma.MaskedArray(np.full(len(part), None, object), True) for part in parts]
    columns = [part.derived.get(NAMES, blank) for part, blank in zip(parts, none, strict=True)]
    concatenate: Any = np.ma.concatenate
    joined: np.ma.MaskedArray[Any, Any] = concatenate(columns)
    return joined


def _padded(part: Part, width: int) -> NDArray[np.uint8]:
    payload = np.zeros((len(part), width), np.uint8)
    if part.payload is not None:
        payload[:, : part.payload.shape[1]] = part.payload
    return payload


def _moves_bytes(part: Part) -> NDArray[np.bool_]:
    """Leave out failed calls, bytes that were only looked at, and those of no known connection."""
    peeked = part.rows["flags"] & np.uint16(MessageFlag.PEEK) != 0
    moves: NDArray[np.bool_] = (part.rows["bytes"] > 0) & (part.rows["error"] == 0) & ~peeked
    moves &= part.rows["family"] != 0
    return moves


def _ends(rows: Rows, side: str) -> list[bytes]:
    """Return an address and its port of each record, as bytes."""
    addresses = np.ascontiguousarray(rows[f"{side}_ip"])
    ports = np.ascontiguousarray(rows[f"{side}_port"]).view(np.uint8).reshape(len(rows), 2)
    both = np.concatenate([addresses, ports], axis=1)
    ends: list[bytes] = both.view(f"V{both.shape[1]}")[:, 0].tolist()
    return ends


def _facts(rows: Rows) -> tuple[list[bytes], list[bytes], list[bool], list[int]]:
    """Return of each message its ends, whether it was sent, and its bytes."""
    sent = np.isin(rows["kind"], SENDS).tolist()
    return _ends(rows, "local"), _ends(rows, "remote"), sent, rows["bytes"].tolist()


def _packets(part: Part, numbers: Sequence[_Number]) -> Packets:
    part = part.take(np.array([number.place for number in numbers], np.intp))
    length = part.rows["bytes"].astype(np.int64)
    pieces = -(-length // LARGEST)
    whole = np.repeat(np.arange(len(part)), pieces)
    piece = np.arange(len(whole)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    seq = np.array([number.seq for number in numbers], np.int64)
    acks = np.array([number.ack or 0 for number in numbers], np.uint32)
    acked = np.array([number.ack is not None for number in numbers])
    payload = np.zeros((0, 0), np.uint8) if part.payload is None else part.payload
    options, options_length = no_options(len(whole))
    first = piece == 0  # less is captured than the first piece holds
    begins = piece * LARGEST
    sizes = np.minimum(length[whole] - begins, LARGEST)
    return Packets(
        event=heads(part)[whole],
        outgoing=np.isin(part.rows["kind"], SENDS)[whole],
        seq=(seq[whole] + begins).astype(np.uint32),
        ack=acks[whole],
        flags=np.where(acked[whole], PSH | ACK, PSH).astype(np.uint16),
        window=np.full(len(whole), WINDOW_UNKNOWN, np.uint16),
        length=sizes,
        payload=payload[whole],
        captured=np.where(first, part.payload_lengths()[whole], 0),
        options=options,
        options_length=options_length,
        ecn=np.zeros(len(whole), np.uint8),
        piece=piece + 1,
        pieces=pieces[whole],
        note=request_notes(part, whole, begins, sizes),
    )
