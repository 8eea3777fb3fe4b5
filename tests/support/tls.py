"""What TLS is on the wire: certificates for tests, and the records in what tcpdump saw."""

from __future__ import annotations

import subprocess
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from .capture import read_packets

HEADER = 5
DATA = 23


def certificate(folder: Path, *extensions: str) -> tuple[str, str]:
    """Make a certificate for localhost and its key; return their files."""
    more = [word for extension in extensions for word in ("-addext", extension)]
    files = str(folder / "certificate.pem"), str(folder / "key.pem")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
               "-nodes", "-out", files[0], "-keyout", files[1], "-days", "2",
               "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1",
               *more]  # fmt: skip
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("needs the package openssl")
    return files


@dataclass
class Records:
    """The records of one direction of a connection, by sequence number."""

    ends: dict[int, tuple[int, int]] = field(default_factory=dict)  # of each: end, type

    def between(self, begin: int, size: int) -> list[int]:
        """Return the types of the whole records from a sequence number on.

        Raises AssertionError if a record does not begin there, or none ends where they should.
        """
        at = begin
        types: list[int] = []
        while at != (begin + size) & 0xFFFFFFFF:
            assert at in self.ends, f"no record begins at {at} of {begin}+{size}"
            assert len(types) < 10_000
            at, kind = self.ends[at]
            types.append(kind)
        return types


def records_on_the_wire(path: Path) -> dict[tuple[int, int], Records]:
    """Return what a capture has, by the ports of sender and receiver."""
    segments: dict[tuple[int, int], dict[int, bytes]] = defaultdict(dict)
    first: dict[tuple[int, int], int] = {}
    for packet in read_packets(path):
        ports = (packet.source_port, packet.destination_port)
        if "SYN" in packet.flags:
            first[ports] = (packet.seq + 1) & 0xFFFFFFFF
        elif packet.payload and ports in first:
            segments[ports][(packet.seq - first[ports]) & 0xFFFFFFFF] = packet.payload
    return {ports: _records(found, first[ports]) for ports, found in segments.items()}


def _records(segments: dict[int, bytes], first: int) -> Records:
    stream = b""
    for at in sorted(segments):
        assert at <= len(stream), "the capture has a gap"
        stream += segments[at][len(stream) - at :]
    records, at = Records(), 0
    while at + HEADER <= len(stream):
        end = at + HEADER + int.from_bytes(stream[at + 3 : at + 5], "big")
        records.ends[(first + at) & 0xFFFFFFFF] = ((first + end) & 0xFFFFFFFF, stream[at])
        at = end
    return records
