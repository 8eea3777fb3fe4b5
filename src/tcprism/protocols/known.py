"""The protocols that are known, in the order in which they are tried."""

from __future__ import annotations

from tcprism.protocols import Protocol
from tcprism.protocols.http1 import HTTP1

PROTOCOLS: tuple[Protocol, ...] = (HTTP1,)
