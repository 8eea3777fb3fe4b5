"""The sink: packets in time order, each with its process, interface and comment."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial
from typing import BinaryIO, Literal

import numpy as np

from tcprism.events import Batch
from tcprism.events.escape import escape
from tcprism.sinks import Sink
from tcprism.sinks.pcapng import blocks
from tcprism.sinks.pcapng.messages import Messages
from tcprism.sinks.pcapng.packets import Numbers, Packets
from tcprism.sinks.pcapng.segments import Segments

Source = Literal["segments", "messages", "plaintext"]

_SOURCES: dict[Source, Callable[[], Callable[[Batch], Packets | None]]] = {
    "segments": Segments,
    "messages": Messages,
    "plaintext": partial(Messages, "tls"),
}
_NOTES: dict[Source, str] = {
    "plaintext": "Plaintext of TLS, read in the processes before they encrypted it or after they"
    " decrypted it: no keys are needed. Sequence numbers are those of the plaintext, from 1."
}
_EVENTS_AT_ONCE = 4096
_BYTES_AT_ONCE = 4 << 20  # of the tables that packets are put together in
_BYTES_BESIDE_PAYLOAD = 256
_OUTBOUND, _INBOUND = 2, 1  # epb_flags
_OPTIONS = 1 << 16  # remembered at most


class Pcapng(Sink):
    """Writes packets to a binary file as pcapng, at once for each batch.

    `source` says what they are: the segments that left this machine or arrived, or packets made of
    the messages of both directions, or of the plaintext of TLS.
    """

    def __init__(self, file: BinaryIO, source: Source = "segments") -> None:
        self._file = file
        self._make = _SOURCES[source]()
        self._interfaces: dict[int, int] = {}
        self._processes: dict[tuple[int, bytes], int] = {}
        self._options: dict[tuple[object, ...], bytes] = {}
        file.write(blocks.section("tcprism", _NOTES.get(source, "")))

    def write(self, batch: Batch) -> None:
        """Write a batch's packets in time order."""
        for piece in batch.split(_events_at_once(batch)):
            packets = self._make(piece)
            if packets is None:
                continue
            width = packets.payload.shape[1] + _BYTES_BESIDE_PAYLOAD
            for some in packets.split(max(1, _BYTES_AT_ONCE // width)):
                self._write(some, piece.clock_offset_ns)
        self._file.flush()

    def close(self) -> None:
        """Write what the file still buffers."""
        self._file.flush()

    def _write(self, packets: Packets, clock_offset_ns: int) -> None:
        interfaces = self._number_interfaces(packets)
        options = self._options_of(packets)
        times = packets.event["ts_ns"].astype(np.int64) + clock_offset_ns
        self._file.write(blocks.encode(packets, times, interfaces, options))

    def _number_interfaces(self, packets: Packets) -> Numbers:
        """Return each packet's interface, one a network namespace; describe new ones."""
        spaces, places = np.unique(packets.event["netns"], return_inverse=True)
        for space in spaces.tolist():
            if space not in self._interfaces:
                self._interfaces[space] = len(self._interfaces)
                self._file.write(blocks.interface(f"netns {space}" if space else "netns unknown"))
        return np.array([self._interfaces[space] for space in spaces.tolist()], np.int64)[places]

    def _options_of(self, packets: Packets) -> list[bytes]:
        event = packets.event
        columns = (event["pid"], event["comm"], packets.outgoing, packets.note)
        pieces = (packets.piece, packets.pieces)
        keys = list(zip(*(column.tolist() for column in (*columns, *pieces)), strict=True))
        if len(self._options) > _OPTIONS:
            self._options.clear()
        for key in keys:  # in their order, for they number the processes
            if key not in self._options:
                self._options[key] = self._make_options(*key)
        return list(map(self._options.__getitem__, keys))

    def _make_options(
        self, pid: int, comm: bytes, outgoing: bool, note: str, piece: int, pieces: int
    ) -> bytes:
        direction = struct.pack("<I", _OUTBOUND if outgoing else _INBOUND)
        made = blocks.option(blocks.OPTION_FLAGS, direction)
        if pid:
            number = struct.pack("<I", self._number_process(pid, comm))
            made += blocks.option(blocks.OPTION_PROCESS, number)
        comment = _comment(pid, comm, note, piece, pieces)
        if comment:
            made += blocks.option(blocks.OPTION_COMMENT, comment.encode("ascii"))
        return made + blocks.option(blocks.OPTION_END, b"")

    def _number_process(self, pid: int, comm: bytes) -> int:
        """Return a process's number in the file; describe it when it is new."""
        if (pid, comm) not in self._processes:
            self._processes[pid, comm] = len(self._processes)
            self._file.write(blocks.process(pid, comm))
        return self._processes[pid, comm]


def _events_at_once(batch: Batch) -> int:
    """Return how many events to turn into packets at once: a segment may be many."""
    widths = (part.payload.shape[1] for part in batch.parts if part.payload is not None)
    widest = max(widths, default=0)
    return min(_EVENTS_AT_ONCE, _BYTES_AT_ONCE // (1 + widest))


def _comment(pid: int, comm: bytes, note: str, piece: int, pieces: int) -> str:
    said = [f"pid {pid} comm {escape(comm)}"] if pid else []
    said += [note] if note else []
    said += [f"packet {piece} of {pieces} of one segment (GSO)"] if pieces > 1 else []
    return ", ".join(said)
