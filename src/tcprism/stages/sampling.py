"""Which connections are in a sample, as bpf/include/tcprism/effort.h decides it."""

from __future__ import annotations

import struct

ALL, NONE = 0, 32
_WORDS = struct.Struct("<4IH")  # an address, and a port
_MASK = 0xFFFFFFFF


def is_sampled(one: bytes, other: bytes, sampling: int) -> bool:
    """Tell whether a connection is in the sample of one in 2^`sampling`.

    Each end is an address (16 bytes, IPv4 mapped) and a port (little endian), as in records.
    """
    return in_sample(mixed_ends(one, other), sampling)


def mixed_ends(one: bytes, other: bytes) -> int:
    """Return what decides of a connection in which samples it is."""
    *address, port = _WORDS.unpack(one)
    *its, its_port = _WORDS.unpack(other)
    mixed = (port ^ its_port) << 8
    for word in (*address, *its):
        mixed ^= word
    mixed = (mixed * 0x9E3779B1) & _MASK
    mixed ^= mixed >> 15
    mixed = (mixed * 0x85EBCA77) & _MASK
    return int(mixed ^ mixed >> 13)


def in_sample(mixed: int, sampling: int) -> bool:
    """Tell the same of a connection's `mixed_ends`."""
    return sampling < NONE and not mixed & ((1 << sampling) - 1)
