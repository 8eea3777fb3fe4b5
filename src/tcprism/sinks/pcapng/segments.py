"""Segments as packets of both directions: the TCP header as the hook saw it, and its payload."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tcprism.capture_filter import CaptureFilter
from tcprism.events import Batch, Part, wording
from tcprism.events._wire import (
    ECN_SHIFT,
    OPTIONS_MAX,
    WSCALE_KNOWN,
    WSCALE_SHIFT,
    EventKind,
    SegmentArrival,
)
from tcprism.events.columns import BY_NAME
from tcprism.events.kinds import NUMBERS, SEGMENT_KINDS
from tcprism.events.names import arrival_name
from tcprism.sinks.pcapng.blocks import ip_packets
from tcprism.sinks.pcapng.packets import (
    ACK,
    CWR,
    FIN,
    LARGEST,
    PSH,
    RST,
    SYN,
    WINDOW_UNKNOWN,
    Numbers,
    Packets,
    both,
    concatenated,
    heads,
    request_notes,
)
from tcprism.sinks.text_details import each

KINDS = [NUMBERS[kind] for kind in SEGMENT_KINDS]
_HEADER_FLAGS = 0x1FF
_FAMILIES = ("segment", "loss")
_REMEMBERED = 1 << 16  # ends, and packets, at most


class Segments:
    """Makes packets of the segments that left this machine or arrived.

    They have their socket's ends. Of those that NAT gives them a comment tells, on the first packet
    that leaves since they are known.

    A segment that was to be cut by the network card (GSO), or has been put together (GRO), becomes
    the packets that were on the wire. Where the kernel does not tell the borders between them, they
    are worked out. A packet whose sender is traced, too, is there once: as it was sent. What is
    sent without a connection's socket, a SYN-ACK, an ACK in TIME_WAIT or a reset, may be seen only
    as it arrives.
    """

    def __init__(self) -> None:
        self._senders: set[bytes] = set()
        self._bare: dict[bytes, int] = {}  # how many packets without data were sent, not received
        self._scaled: set[bytes] = set()  # senders whose SYN is there, or a note of their scale
        self._translated: dict[bytes, str] = {}  # notes of senders that wait for their next packet

    def __call__(self, batch: Batch) -> Packets | None:
        """Return the packets of a batch in time order, None when there are none."""
        parts = [part.take(_chosen(part)) for part in batch.parts if part.family in _FAMILIES]
        for part in parts:
            self._note_senders(part)
        parts = [wanted for part in parts if len(wanted := part.take(self._wanted(part)))]
        self._note_translations(batch)
        notes = map(both, self._scales(parts), self._translations(parts))
        packets = list(map(_packets, parts, notes))
        return concatenated(packets) if packets else None

    def _note_senders(self, part: Part) -> None:
        if len(self._senders) > _REMEMBERED:
            self._senders.clear()
        sent = part.take(~_received(part))
        self._senders |= set(_ends(sent, "local", "remote"))
        for packet in _bare(sent, "local", "remote").values():
            self._bare[packet] = self._bare.get(packet, 0) + 1
        while len(self._bare) > _REMEMBERED:
            del self._bare[next(iter(self._bare))]

    def _wanted(self, part: Part) -> NDArray[np.bool_]:
        """Tell which packets are not there already, as their sender has them."""
        wanted = np.ones(len(part), np.bool_)
        places = np.flatnonzero(_received(part))
        received = part.take(places)
        bare = _bare(received, "remote", "local")
        wanted[places] = [
            each not in self._senders or (place in bare and not self._was_sent(bare[place]))
            for place, each in enumerate(_ends(received, "remote", "local"))
        ]
        return wanted

    def _was_sent(self, packet: bytes) -> bool:
        left = self._bare.pop(packet, 0)
        if left > 1:
            self._bare[packet] = left - 1
        return left > 0

    def _scales(self, parts: Sequence[Part]) -> list[NDArray[np.object_]]:
        """Say how a sender's windows are scaled where its SYN, which would tell, is not there."""
        notes = [np.full(len(part), "", object) for part in parts]
        if len(self._scaled) > _REMEMBERED:
            self._scaled.clear()
        senders = list(map(_senders_of, parts))
        flags = [part.rows["flags"] for part in parts]
        told = [(flags & (SYN | WSCALE_KNOWN) != 0) & (flags & RST == 0) for flags in flags]
        for number, place in zip(
            *(column.tolist() for column in Batch(parts).order()), strict=True
        ):
            ends = senders[number][place]
            if ends in self._scaled or not told[number][place]:
                continue
            self._scaled.add(ends)
            if not flags[number][place] & SYN:
                scale = flags[number][place] >> WSCALE_SHIFT & 15
                notes[number][place] = f"window scale {scale}"
        return notes

    def _note_translations(self, batch: Batch) -> None:
        if len(self._translated) > _REMEMBERED:
            self._translated.clear()
        for part in batch.parts:
            if part.family == "translation":
                senders = _ends(part, "local", "remote")
                told = each(wording.translate, part)
                self._translated |= dict(zip(senders, told, strict=True))

    def _translations(self, parts: Sequence[Part]) -> list[NDArray[np.object_]]:
        notes = [np.full(len(part), "", object) for part in parts]
        if not self._translated:
            return notes
        senders = list(map(_senders_of, parts))
        for number, place in zip(
            *(column.tolist() for column in Batch(parts).order()), strict=True
        ):
            told = self._translated.pop(senders[number][place], None)
            if told:
                notes[number][place] = f"translated by NAT {told}"
        return notes


def _senders_of(part: Part) -> list[bytes]:
    """Return each packet's ends, its sender first."""
    pairs = zip(
        _received(part).tolist(),
        _ends(part, "remote", "local"),
        _ends(part, "local", "remote"),
        strict=True,
    )
    return [there if received else here for received, there, here in pairs]


def matching(part: Part, chosen: CaptureFilter) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Tell which records are segments of which a packet on the wire matches a filter.

    Also tell of which none does only because not all of it was recorded.
    """
    matches, unknown = np.zeros((2, len(part)), np.bool_)
    places = np.flatnonzero(_chosen(part))
    packets = _packets(part.take(places), np.full(len(places), "", object))
    of_record = places[np.cumsum(packets.piece == 1) - 1]
    matched, cut = chosen.judge(*ip_packets(packets), with_options="options" in part.derived)
    matches[of_record[matched]] = True
    unknown[of_record[cut]] = True
    return matches, unknown & ~matches


def _received(part: Part) -> NDArray[np.bool_]:
    received: NDArray[np.bool_] = part.rows["kind"] == EventKind.RECEIVE
    return received


def _ends(part: Part, source: str, destination: str) -> list[bytes]:
    """Return each record's addresses and ports, the sender's first."""
    rows = part.rows
    columns = []
    for side in (source, destination):
        ports = np.ascontiguousarray(rows[f"{side}_port"]).view(np.uint8).reshape(len(rows), 2)
        columns += [np.ascontiguousarray(rows[f"{side}_ip"]), ports]
    joined = np.concatenate(columns, axis=1)
    ends: list[bytes] = joined.view(f"V{joined.shape[1]}").ravel().tolist()
    return ends


def _bare(part: Part, source: str, destination: str) -> dict[int, bytes]:
    """Return what tells packets apart that only acknowledge or reset, by their place."""
    rows = part.rows
    others = np.isin(rows["flags"] & (SYN | FIN | ACK), (SYN, FIN, FIN | ACK))
    places = np.flatnonzero((rows["bytes"] == 0) & ~others)
    numbers = np.stack([rows[name][places] for name in ("seq", "ack")], axis=1)
    told = zip(_ends(part.take(places), source, destination), numbers, strict=True)
    return {
        place: ends + number.tobytes()
        for place, (ends, number) in zip(places.tolist(), told, strict=True)
    }


def _chosen(part: Part) -> NDArray[np.bool_]:
    """Tell which records are segments on the wire: no other kind, no attempt that failed."""
    sent: NDArray[np.bool_] = np.isin(part.rows["kind"], KINDS) & (part.rows["error"] == 0)
    return sent


def _packets(part: Part, notes: NDArray[np.object_]) -> Packets:
    length = part.rows["bytes"].astype(np.int64)
    pieces, step = _pieces(part, length)
    whole = np.repeat(np.arange(len(part)), pieces)
    piece = np.arange(len(whole)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    rows, last = part.rows[whole], piece == pieces[whole] - 1
    first = piece * step[whole]
    sizes = np.clip(length[whole] - first, 0, step[whole])
    window = np.where(BY_NAME["window"].mask(part), WINDOW_UNKNOWN, part.rows["window"])
    payload, captured = _payload(part, whole, first, sizes)
    options, options_length = _options(part)
    return Packets(
        event=heads(part)[whole],
        outgoing=~_received(part)[whole],
        seq=(rows["seq"] + first).astype(np.uint32),
        ack=rows["ack"],
        flags=_flags(rows["flags"], piece, last),
        window=window[whole].astype(np.uint16),
        length=sizes,
        payload=payload,
        captured=captured,
        options=options[whole],
        options_length=options_length[whole],
        ecn=(rows["flags"] >> ECN_SHIFT).astype(np.uint8),
        piece=piece + 1,
        pieces=pieces[whole],
        note=both(both(notes, _notes(part))[whole], request_notes(part, whole, first, sizes)),
    )


def _pieces(part: Part, length: Numbers) -> tuple[Numbers, Numbers]:
    """Return of how many packets each segment is, and the payload bytes of each but the last."""
    segs, size = (part.rows[name].astype(np.int64) for name in ("segs", "gso_size"))
    known = (size > 0) & (segs > 1)
    pieces = np.maximum(segs, -(-length // LARGEST))
    pieces = np.where(length > 0, np.maximum(pieces, 1), 1)
    size = np.where(known, size, -(-length // pieces))
    pieces = np.where(known & (length > 0), -(-length // np.maximum(size, 1)), pieces)
    return pieces, size


def _payload(
    part: Part, whole: NDArray[np.intp], first: Numbers, sizes: Numbers
) -> tuple[NDArray[np.uint8], Numbers]:
    """Return the bytes of each packet that were recorded with its segment, and how many."""
    if part.payload is None or not len(whole):
        return np.zeros((len(whole), 0), np.uint8), np.zeros(len(whole), np.int64)
    captured = np.clip(part.payload_lengths()[whole] - first, 0, sizes)
    places = np.minimum(first[:, None] + np.arange(captured.max()), part.payload.shape[1] - 1)
    return part.payload[whole[:, None], places], captured


def _options(part: Part) -> tuple[NDArray[np.uint8], Numbers]:
    """Return the options of each TCP header, as far as they were recorded."""
    table = np.zeros((len(part), OPTIONS_MAX), np.uint8)
    lengths = np.zeros(len(part), np.int64)
    column = part.derived.get("options")
    if column is None:
        return table, lengths
    known = ~np.ma.getmaskarray(column)
    for row in np.flatnonzero(known).tolist():
        options = _bytes_of(column.data[row])
        lengths[row] = len(options)
        table[row, : len(options)] = np.frombuffer(options, np.uint8)
    return table, lengths


def _bytes_of(text: str) -> bytes:
    """Return what is written; nothing for what a recording should not have."""
    try:
        options = bytes.fromhex(text)
    except ValueError:
        return b""
    return options if len(options) <= OPTIONS_MAX and len(options) % 4 == 0 else b""


def _flags(
    flags: NDArray[np.uint16], piece: Numbers, last: NDArray[np.bool_]
) -> NDArray[np.uint16]:
    """Return each piece's flags: FIN and PSH stand on the last of a segment, CWR on the first."""
    kept = np.where(last, _HEADER_FLAGS, _HEADER_FLAGS & ~(FIN | PSH))
    kept = np.where(piece == 0, kept, kept & ~CWR)
    return (flags & kept).astype(np.uint16)


def _notes(part: Part) -> NDArray[np.object_]:
    """Say why a segment was sent again, and how often it was sent by now, or what of it was new."""
    notes = np.where(BY_NAME["window"].mask(part), "window unknown", "").astype(object)
    causes = BY_NAME["cause"].to_list(part)
    attempts = BY_NAME["attempt"].to_list(part) if part.family == "loss" else [None] * len(part)
    for index in np.flatnonzero(~BY_NAME["cause"].mask(part)).tolist():
        cause, attempt = causes[index], attempts[index]
        notes[index] += ", " if notes[index] else ""
        notes[index] += f"cause {cause}" + (f" attempt {attempt}" if attempt else "")
    if part.family == "segment":
        usual = (SegmentArrival.UNKNOWN, SegmentArrival.IN_ORDER)
        for index in np.flatnonzero(~np.isin(part.rows["arrival"], usual)).tolist():
            notes[index] += arrival_name(part.rows["arrival"][index]).replace("_", " ")
    return notes
