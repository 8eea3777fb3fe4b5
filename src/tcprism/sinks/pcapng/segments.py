"""Segments as packets: the TCP header as the hook saw it, without options and without payload."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tcprism.events import Batch, Part
from tcprism.events._wire import EventKind
from tcprism.events.columns import BY_NAME
from tcprism.sinks.pcapng.packets import (
    CWR,
    FIN,
    LARGEST,
    PSH,
    WINDOW_UNKNOWN,
    Numbers,
    Packets,
    both,
    concatenated,
    heads,
    request_notes,
)

KINDS = (EventKind.TRANSMIT, EventKind.PROBE, EventKind.RETRANSMIT)
_HEADER_FLAGS = 0x1FF


class Segments:
    """Makes packets of the segments that left this machine.

    A segment that was to be cut by the network card (GSO) becomes the packets that it was cut into;
    the borders between them are worked out, for the kernel does not tell them.
    """

    def __call__(self, batch: Batch) -> Packets | None:
        """Return the packets of a batch in time order, None when there are none."""
        parts = [part.take(_sent(part)) for part in batch.parts if part.family in _FAMILIES]
        packets = [_packets(part) for part in parts if len(part)]
        return concatenated(packets) if packets else None


_FAMILIES = ("segment", "loss")


def _sent(part: Part) -> NDArray[np.bool_]:
    """Tell which records are segments that left: no other kind, no attempt that failed."""
    sent: NDArray[np.bool_] = np.isin(part.rows["kind"], KINDS) & (part.rows["error"] == 0)
    return sent


def _packets(part: Part) -> Packets:
    length = part.rows["bytes"].astype(np.int64)
    pieces = np.maximum(part.rows["segs"].astype(np.int64), -(-length // LARGEST))
    pieces = np.where(length > 0, np.maximum(pieces, 1), 1)
    whole = np.repeat(np.arange(len(part)), pieces)
    piece = np.arange(len(whole)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    step = -(-length // pieces)[whole]
    rows, last = part.rows[whole], piece == pieces[whole] - 1
    first = piece * step
    sizes = np.clip(length[whole] - first, 0, step)
    window = np.where(BY_NAME["window"].mask(part), WINDOW_UNKNOWN, part.rows["window"])
    return Packets(
        event=heads(part)[whole],
        outgoing=np.ones(len(whole), np.bool_),
        seq=(rows["seq"] + first).astype(np.uint32),
        ack=rows["ack"],
        flags=_flags(rows["flags"], piece, last),
        window=window[whole].astype(np.uint16),
        length=sizes,
        payload=np.zeros((len(whole), 0), np.uint8),
        captured=np.zeros(len(whole), np.int64),
        piece=piece + 1,
        pieces=pieces[whole],
        note=both(_notes(part)[whole], request_notes(part, whole, first, sizes)),
    )


def _flags(
    flags: NDArray[np.uint16], piece: Numbers, last: NDArray[np.bool_]
) -> NDArray[np.uint16]:
    """Return each piece's flags: FIN and PSH stand on the last of a segment, CWR on the first."""
    kept = np.where(last, _HEADER_FLAGS, _HEADER_FLAGS & ~(FIN | PSH))
    kept = np.where(piece == 0, kept, kept & ~CWR)
    return (flags & kept).astype(np.uint16)


def _notes(part: Part) -> NDArray[np.object_]:
    """Say why a segment was sent again, and how often it was sent by now."""
    notes = np.where(BY_NAME["window"].mask(part), "window unknown", "").astype(object)
    causes = BY_NAME["cause"].to_list(part)
    attempts = BY_NAME["attempt"].to_list(part) if part.family == "loss" else [None] * len(part)
    for index in np.flatnonzero(~BY_NAME["cause"].mask(part)).tolist():
        cause, attempt = causes[index], attempts[index]
        notes[index] += ", " if notes[index] else ""
        notes[index] += f"cause {cause}" + (f" attempt {attempt}" if attempt else "")
    return notes
