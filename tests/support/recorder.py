"""Records messages out of this process's memory, by tests/bpf/programs/payload.bpf.c."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tcprism.events._wire import MESSAGE
from tcprism.kernel.object import BpfObject
from tcprism.ring import rings
from tcprism.ring.buffer import RingBuffer
from tests.support.bpf import run_syscall_program

# enum buffer_shape, bpf/include/tcprism/buffer.h
FLAT, IOVEC, USER_IOVEC, COMPAT_IOVEC = range(4)

_TASK = struct.Struct("=QIIIII4x")  # struct task of the program


@dataclass(frozen=True, slots=True)
class Message:
    """A record as it was read, and the payload class of its ring."""

    requested: int
    unavailable: int
    payload: bytes
    ring: int


class Recorder:
    """The loaded program and its rings, cut up as on a machine with so many CPUs.

    `limit` is the most payload of a message. Close it in the end.
    """

    def __init__(self, path: Path, limit: int, cpus: int, ring_size: int = 1 << 20) -> None:
        self.limit = limit
        self.layouts = rings.layouts(rings.sizes({"send"}, limit, ring_size), cpus)
        self.bpf = BpfObject(path)
        lanes = self.layouts["message_0"].lanes
        settings: dict[str, object] = {"payload_limit": limit, "last_lane": lanes - 1}
        self.bpf.configure(settings, rings.entries(self.layouts))
        self.bpf.load()
        self._program = self.bpf.program_fd("record_messages")
        self._rings = {
            name: RingBuffer(self.bpf.map_fd(name), self.bpf.map_fd(f"{name}_lanes"), layout)
            for name, layout in self.layouts.items()
            if layout.slots
        }

    def close(self) -> None:
        """Unload it."""
        for buffer in self._rings.values():
            buffer.close()
        self.bpf.close()

    def run(self, shape: int, base: int, segments: int, offset: int, size: int, times: int) -> None:
        """Record a message of `size` bytes some times, from a buffer or an iovec at `base`.

        `offset` is one into the buffer, or into the first segment.
        """
        task = _TASK.pack(base, segments, offset, shape, size, times)
        run_syscall_program(self._program, task)

    def read(self) -> list[Message]:
        """Return what has been recorded."""
        return [
            message
            for name, buffer in self._rings.items()
            for lane, (waiting, _) in enumerate(buffer.look())
            for message in _messages(buffer, lane, waiting, int(name.removeprefix("message_")))
        ]

    def record(self, shape: int, base: int, segments: int, offset: int, size: int) -> Message:
        """Record one message and return it."""
        self.run(shape, base, segments, offset, size, 1)
        (message,) = self.read()
        return message


def _messages(buffer: RingBuffer, lane: int, waiting: int, ring: int) -> Iterator[Message]:
    while waiting:
        rows = buffer.read(lane, waiting)
        waiting -= len(rows)
        for row in rows:
            raw = row.tobytes()
            head = np.frombuffer(raw, MESSAGE, 1)[0]
            end = MESSAGE.itemsize + int(head["payload_length"])
            yield Message(
                int(head["requested"]),
                int(head["payload_unavailable"]),
                raw[MESSAGE.itemsize : end],
                ring,
            )
