"""Packets as columns: what the block writer needs of each, whatever made them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from tcprism.events import Part
from tcprism.events._wire import EVENT, EventKind
from tcprism.events.part import Rows
from tcprism.events.requests import NAMES, Said

LARGEST = 65_495  # payload bytes: what 16 bits of IPv4's total length leave

NAMED_MAX = 3  # requests in one packet

WINDOW_UNKNOWN = 65_535  # 0 would say that the window is closed

FIN, SYN, RST, PSH, ACK, CWR = 0x01, 0x02, 0x04, 0x08, 0x10, 0x80

_HEAD = [
    "ts_ns",
    "pid",
    "comm",
    "netns",
    "socket",
    "family",
    "local_ip",
    "local_port",
    "remote_ip",
    "remote_port",
]
HEAD = np.dtype([(name, EVENT[name]) for name in _HEAD])

Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Packets:
    """One value a packet. `event` is who, where and when (HEAD).

    `outgoing` says whether it goes from the local to the remote end. `length` is the payload on the
    wire, `payload` the part of it that is known, `captured` bytes of each row. `options` are those
    of the TCP header, `options_length` bytes of each row. `ecn` is the ECN field. `piece` and
    `pieces` number the packets of one event from 1. `note` is what a comment says of it, beside the
    process.
    """

    event: Rows
    outgoing: NDArray[np.bool_]
    seq: NDArray[np.uint32]
    ack: NDArray[np.uint32]
    flags: NDArray[np.uint16]
    window: NDArray[np.uint16]
    length: Numbers
    payload: NDArray[np.uint8]
    captured: Numbers
    options: NDArray[np.uint8]
    options_length: Numbers
    ecn: NDArray[np.uint8]
    piece: Numbers
    pieces: Numbers
    note: NDArray[np.object_]

    def __len__(self) -> int:
        return len(self.event)

    def take(self, which: NDArray[np.intp] | slice) -> Packets:
        """Return some of the packets."""
        return Packets(*(getattr(self, field.name)[which] for field in fields(self)))

    def split(self, size: int) -> Iterator[Packets]:
        """Yield them, at most `size` at once."""
        for first in range(0, len(self), size):
            yield self.take(slice(first, first + size))


def concatenated(packets: Sequence[Packets]) -> Packets:
    """Return packets of several kinds in time order."""
    widest = max(each.payload.shape[1] for each in packets)
    packets = [replace(each, payload=_padded(each.payload, widest)) for each in packets]
    columns = (np.concatenate([getattr(p, f.name) for p in packets]) for f in fields(Packets))
    whole = Packets(*columns)
    return whole.take(np.argsort(whole.event["ts_ns"], kind="stable"))


def _padded(payload: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    return np.pad(payload, ((0, 0), (0, width - payload.shape[1])))


def no_options(count: int) -> tuple[NDArray[np.uint8], Numbers]:
    """Return the options, and their lengths, of packets without any."""
    return np.zeros((count, 0), np.uint8), np.zeros(count, np.int64)


def heads(part: Part) -> Rows:
    """Return who, where and when of each record."""
    rows = np.empty(len(part), HEAD)
    for name in HEAD.names or ():
        rows[name] = part.rows[name]
    return rows


def request_notes(
    part: Part, whole: NDArray[np.intp], first: Numbers, length: Numbers
) -> NDArray[np.object_]:
    """Return which requests and responses begin in each packet, or which bytes of them it repeats.

    `whole` is the place of each packet's event, `first` where its bytes begin in the event's.
    """
    notes = np.full(len(whole), "", object)
    names = part.derived.get(NAMES)
    if names is None:
        return notes
    those, told = names.tolist(), ~np.ma.getmaskarray(names)
    again = part.rows["kind"] == EventKind.RETRANSMIT
    for packet in np.flatnonzero(told[whole]).tolist():
        event = int(whole[packet])
        begin, end = int(first[packet]), int(first[packet] + length[packet])
        say = _repeated if again[event] else _begun
        said = [text for one in those[event] if (text := say(one, begin, end))]
        notes[packet] = _listed(said)
    return notes


def _begun(one: Said, begin: int, end: int) -> str:
    return one.text if begin <= one.begin < end else ""


def _repeated(one: Said, begin: int, end: int) -> str:
    """Say which bytes of a request are repeated; of one that others lie between, only the first."""
    if one.end is None:
        return f"repeats the first byte of {one.text}" if begin <= one.begin < end else ""
    first, last = max(begin, one.begin) - one.begin, min(end, one.end) - one.begin
    return f"repeats bytes {first}-{last - 1} of {one.text}" if first < last else ""


def _listed(said: Sequence[str]) -> str:
    more = f", {len(said) - NAMED_MAX} more requests" if len(said) > NAMED_MAX else ""
    return f"{', '.join(said[:NAMED_MAX])}{more}"


def both(notes: NDArray[np.object_], more: NDArray[np.object_]) -> NDArray[np.object_]:
    """Return two notes of each packet as one."""
    commas = np.where((notes != "") & (more != ""), ", ", "").astype(object)
    joined: NDArray[np.object_] = notes + commas + more
    return joined
