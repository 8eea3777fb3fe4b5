"""Hellos of TLS that no known library has sent: the kernel wakes whoever waits for one."""

from __future__ import annotations

import mmap
import os
import select

import numpy as np


class Hellos:
    """Waits for records in a BPF ring buffer. What is in them does not matter.

    Its first page has the position up to which they were read, the second the one up to which they
    were written (kernel/bpf/ringbuf.c). Raises OSError when made.
    """

    def __init__(self, map_fd: int) -> None:
        self._end_out, self._end_in = os.pipe()
        self._poll = select.poll()
        for descriptor in (map_fd, self._end_out):
            self._poll.register(descriptor, select.POLLIN)
        both = mmap.PROT_READ | mmap.PROT_WRITE
        size, shared = mmap.PAGESIZE, mmap.MAP_SHARED
        self._consumer = mmap.mmap(map_fd, size, shared, both)
        self._producer = mmap.mmap(map_fd, size, shared, mmap.PROT_READ, offset=size)

    def wait(self) -> bool:
        """Wait for one; False: nobody waits any longer."""
        found = {descriptor for descriptor, _ in self._poll.poll()}
        np.frombuffer(self._consumer, np.uint64, 1)[0] = np.frombuffer(
            self._producer, np.uint64, 1
        )[0]
        return self._end_out not in found

    def end(self) -> None:
        """Have who waits wait no longer."""
        os.write(self._end_in, b"1")

    def close(self) -> None:
        """Forget all, when nobody waits."""
        for descriptor in (self._end_out, self._end_in):
            os.close(descriptor)
        self._consumer.close()
        self._producer.close()
