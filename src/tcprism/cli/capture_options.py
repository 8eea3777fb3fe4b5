"""The option --capture-filter, in the words of tcpdump."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from tcprism.capture_filter import CaptureFilter, compiled
from tcprism.classic_bpf import Load
from tcprism.errors import UsageError
from tcprism.sources.request import CAPTURE_KINDS
from tcprism.stages import Stage
from tcprism.stages.capture import Captured

capture_option = click.option(
    "--capture-filter",
    metavar="EXPRESSION",
    help="Show only segments that match an expression of pcap-filter(7), as tcpdump takes it.",
)


def parse_capture_filter(given: dict[str, Any]) -> tuple[Stage, ...]:
    """Return the stage of --capture-filter, if it is given. Raises UsageError."""
    text = given.pop("capture_filter")
    if text is None:
        return ()
    _refuse_others(given)
    from tcprism.sinks.pcapng.segments import matching

    chosen = compiled(text)
    _refuse_unknown(chosen)
    return (Captured(lambda part: matching(part, chosen)),)


def _refuse_others(given: dict[str, Any]) -> None:
    """Raise UsageError where segments are not what is to be shown."""
    packets, view, kinds = (given.get(name) for name in ("packets", "preset", "kinds"))
    if packets not in (None, "segments"):
        raise UsageError(f"--capture-filter chooses segments, and --packets {packets} has none")
    if view in ("connections", "requests"):
        raise UsageError(f"--capture-filter chooses segments, and --as {view} shows none")
    chosen = [kind.strip() for kind in kinds.split(",")] if kinds else []
    if "all" not in chosen:  # of a recording, that is whatever it has
        require_segments(chosen)


# What no record has of a packet: name, first bit and the one behind the last. TCP's header is where
# it is without options of IP.
_TCP = (("TCP's checksum", 128, 144), ("the urgent pointer", 144, 160))
_UNKNOWN = {
    4: (
        *(("the DSCP", 8, 14), ("IP's identification", 32, 48), ("IP's flags", 48, 50)),
        *(("the time to live", 64, 72), ("IP's checksum", 80, 96)),
        *((name, 160 + begin, 160 + end) for name, begin, end in _TCP),
    ),
    6: (
        *(("the DSCP", 4, 10), ("the flow label", 12, 32), ("the hop limit", 56, 64)),
        *((name, 320 + begin, 320 + end) for name, begin, end in _TCP),
    ),
}
_BESIDE_PACKET = 0x8000_0000  # there Linux has what it knows of a packet: SKF_AD_OFF


def _refuse_unknown(chosen: CaptureFilter) -> None:
    if any(load.offset >= _BESIDE_PACKET for load in chosen.loads):
        raise UsageError(
            "--capture-filter: inbound, outbound and what else is not in a packet cannot be chosen"
            " by; --kinds transmit,probe,retransmit is what leaves, --kinds receive what arrives"
        )
    if names := sorted({name for load in chosen.loads for name in _unknown(load)}):
        raise UsageError(
            f"--capture-filter: {names[0]} is not recorded, so nothing can be chosen by it;"
            " addresses, ports, lengths, ECN, and TCP's header with its options are"
        )


def _unknown(load: Load) -> list[str]:
    """Return which fields that no record has a filter looks at."""
    begin, end = 8 * load.offset, 8 * (load.offset + load.size)
    found = []
    for name, first, behind in _UNKNOWN[load.family]:
        low, high = max(first, begin), min(behind, end)
        if low < high and load.mask >> end - high & (1 << high - low) - 1:
            found.append(name)
    return found


def require_segments(kinds: Sequence[str]) -> None:
    """Check that kinds are packets. Raises UsageError."""
    if other := next((kind for kind in kinds if kind not in CAPTURE_KINDS), None):
        raise UsageError(
            f"--capture-filter chooses packets, and {other} is none:"
            f" give --kinds some of {', '.join(CAPTURE_KINDS)}"
        )
