"""How much is recorded: everything, or in steps less, each of which costs less than the last."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from tcprism.probes import segment
from tcprism.sources.request import Request

_LEAST_PAYLOAD = 256  # bytes: most first lines and headers
_LARGEST_SAMPLE, _NONE = 8, 32  # of 2^n connections one; of none


@dataclass(frozen=True, slots=True)
class Effort:
    """What hooks record: `resting` are the kinds whose hooks are off.

    The other fields are those of struct effort (bpf/include/tcprism/events.h).
    """

    name: str = "everything"
    payload_shift: int = 0
    message_sampling: int = 0
    segment_sampling: int = 0
    resting: tuple[str, ...] = ()

    @property
    def sampling(self) -> int:
        """Of 2^n connections, the messages of one are recorded; 32: of none."""
        return self.message_sampling


def efforts(request: Request) -> tuple[Effort, ...]:
    """Return the efforts for a request, largest first: each leaves out more than the one before."""
    return tuple(_steps(request))


def _steps(request: Request) -> Iterator[Effort]:
    yield (now := Effort())
    kinds = set(request.kinds)
    messages = kinds & {"send", "recv", "tls_send", "tls_recv"}
    for shift in (2, 4, 6):
        if messages and request.payload >> shift >= _LEAST_PAYLOAD:
            now = replace(
                now, payload_shift=shift, name=f"{request.payload >> shift} bytes of payload"
            )
            yield now
    if kinds & {"transmit", *segment.RECEIVE.kinds}:
        now = replace(now, segment_sampling=_NONE, name="no segments")
        yield now
    for sampling in range(1, _LARGEST_SAMPLE + 1) if messages else ():
        now = replace(now, message_sampling=sampling, name=f"1 of {1 << sampling} connections")
        yield now
    yield from _rests(now, kinds, bool(messages))


def _rests(now: Effort, kinds: Iterable[str], messages: bool) -> Iterator[Effort]:
    """Yield what is left as hooks go off; who uses a socket is told by messages, too."""
    for name, chosen in (
        ("no acked", ("acked",)),
        ("no undo", ("undo",)),
        ("no messages" if messages else "no users of sockets", ("send", "recv")),
    ):
        if "send" in chosen or set(chosen) & set(kinds):
            now = replace(now, name=name, resting=(*now.resting, *chosen))
            if "send" in chosen:
                now = replace(now, message_sampling=_NONE)
            yield now
