"""BPF iterators: programs that the kernel runs over its own tables when a descriptor is read."""

from __future__ import annotations

import os

from tcprism.kernel import libbpf

_READ_AT_ONCE = 1 << 20  # the kernel gives at most 32 KiB


def read_iterator(link: int) -> bytes:
    """Return all that the iterator behind a link's descriptor writes in one run.

    Raises OSError.
    """
    descriptor = int(libbpf.load().checked("bpf_iter_create", link))
    try:
        pieces = []
        while piece := os.read(descriptor, _READ_AT_ONCE):
            pieces.append(piece)
        return b"".join(pieces)
    finally:
        os.close(descriptor)
