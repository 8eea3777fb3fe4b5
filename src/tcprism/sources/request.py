"""Request: what to trace."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from tcprism.errors import UsageError
from tcprism.events._wire import PAYLOAD_MAX
from tcprism.events.kinds import SEGMENT_KINDS, TLS_KINDS
from tcprism.filters import Criteria
from tcprism.ring import rings

DEFAULT_KINDS = ("send", "recv", "retransmit", "drop", "connect", "accept", "close", "reset")
CAPTURE_KINDS = (*SEGMENT_KINDS, "translate")  # and what a capture says of them
DEFAULT_PAYLOAD = 64
DEFAULT_MAX_CONNECTIONS = 65_536


@dataclass(frozen=True, slots=True)
class Request:
    """What to trace: kinds of events, filter, payload bytes a message, bytes a busy ring.

    `mechanism` forces "fentry", "kprobe" or "tracepoint". `ordered=False` gives up the time order.
    `max_connections` bounds what is remembered where the kernel has no storage at the socket.
    `tls_records`: messages that carry what tls_send and tls_recv show have their payload, too.
    `options`: segments come with the options of their TCP header.
    `skip_bodies`: messages in the middle of an HTTP/1 body of known length come without payload.
    `segment_payload`: payload bytes a segment, from its packet.
    `redact`: overwrite secrets in payload, and what these regular expressions match; None: do not.
    Raises UsageError when the kinds make no sense together, or a size is out of its bounds.
    """

    kinds: tuple[str, ...] = DEFAULT_KINDS
    filter: Criteria = field(default_factory=Criteria)
    payload: int = DEFAULT_PAYLOAD
    ring_size: int = rings.DEFAULT_SIZE
    mechanism: str | None = None
    include_self: bool = False
    ordered: bool = True
    max_connections: int = DEFAULT_MAX_CONNECTIONS
    tls_records: bool = False
    redact: tuple[str, ...] | None = None
    options: bool = False
    skip_bodies: bool = False
    segment_payload: int = 0

    def __post_init__(self) -> None:
        if "acked" in self.kinds and "send" not in self.kinds:
            raise UsageError("--kinds: acked tells what became of each send: add send to the kinds")
        if set(self.kinds) & set(TLS_KINDS) and not {"send", "recv"} <= set(self.kinds):
            raise UsageError(
                "--kinds: the messages that carry TLS tell which connection it uses:"
                " add send and recv to the kinds"
            )
        if self.reads_packets and self.mechanism not in (None, "tracepoint"):
            what = "payload of segments" if self.segment_payload else "translated addresses"
            what = "TCP options" if self.options else what
            raise UsageError(
                f"--hooks {self.mechanism} sees no {what}: use --hooks tracepoint, or neither"
            )
        _check_bounds("payload", self.payload, 0, PAYLOAD_MAX)
        _check_bounds("payload of segments", self.segment_payload, 0, PAYLOAD_MAX)
        _check_bounds("ring size", self.ring_size, rings.SMALLEST, rings.LARGEST)

    @property
    def reads_packets(self) -> bool:
        """Whether what only a packet has is asked for."""
        return self.options or self.segment_payload > 0 or "translate" in self.kinds


def payload_of_segments(kinds: Collection[str], payload: int | None) -> int:
    """Return the payload bytes a segment where so many were asked for; None: nobody did.

    Where messages are traced, they have these bytes.
    """
    here = {"transmit", "probe", "receive"} & {*kinds} and not {"send", "recv"} & {*kinds}
    return payload or 0 if here else 0


def _check_bounds(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise UsageError(f"{name}: {value} is not between {least} and {most} bytes")
