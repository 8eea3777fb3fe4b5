"""What segments prove about one connection, measured and in words (docs/explain.md)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from tcprism.diagnosis.delta import Delta, Flags, Numbers, ratio
from tcprism.diagnosis.segment_rows import LATE_ACK_US
from tcprism.events.units import counted, duration, size


def any_of(*names: str) -> Callable[[Delta], Flags]:
    """Return what tells where one of some facts is not 0."""
    return lambda change: np.any([change.fact(name) > 0 for name in names], axis=0)


def of_time(name: str) -> Callable[[Delta], Numbers]:
    """Return what tells for which share of the time something lasted."""
    return lambda change: ratio(change.fact(name), change.elapsed_us).clip(0, 1)


def of_segments(name: str, *whole: str) -> Callable[[Delta], Numbers]:
    """Return what tells which share of some segments a fact counts."""

    def share(change: Delta) -> Numbers:
        return ratio(change.fact(name), sum(map(change.fact, whole), np.zeros(len(change))))

    return share


def _on_the_way_out(change: Delta) -> Numbers:
    """What the kernel counted as reordered, if nothing was sent again: else it may be that."""
    return np.where(change.delta("total_retrans") == 0, change.delta("reord_seen"), 0)


def reordered(change: Delta) -> Flags:
    """Tell where segments overtook others on their way here, or on their way out."""
    seen: Flags = (change.fact("reordered") > 0) | (_on_the_way_out(change) > 0)
    return seen


def reordering(change: Delta) -> Numbers:
    there = ratio(_on_the_way_out(change), change.delta("data_segs_out"))
    here = ratio(change.fact("reordered"), change.fact("data_arrived"))
    return np.maximum(there, here).clip(0, 1)


def marked(change: Delta) -> Flags:
    """Tell where routers marked segments: they arrived so, or the peer says that they did.

    The flags mean something else with Accurate ECN (RFC 9768).
    """
    echoed = (change.fact("ece_arrived") > 0) & (change.fact("accurate_ecn") == 0)
    seen: Flags = (change.fact("ce_arrived") > 0) | echoed
    return seen


def marks(change: Delta) -> Numbers:
    echoed = np.where(change.fact("accurate_ecn") > 0, 0, change.fact("ece_arrived"))
    most = np.maximum(change.fact("ce_arrived"), echoed)
    return ratio(most, change.fact("arrived")).clip(0, 1)


def closed_words(change: Delta, index: int) -> str:
    told = _Told(change, index)
    times = counted(told.count("zero_windows"), "time")
    words = f"zero windows arrived {times}, for {told.time('zero_window_us')} in all"
    if told.count("zero_windows") > 1:
        words += f", the longest for {told.time('zero_window_longest_us')}"
    return f"{words}; it is still closed" if told.count("closed_us") else words


def late_words(change: Delta, index: int) -> str:
    told = _Told(change, index)
    acks = counted(told.count("late_acks"), "ACK")
    return (
        f"{acks} left {duration(LATE_ACK_US)} or more after the data had arrived,"
        f" the latest after {told.time('late_acks_longest_us')}"
    )


def peer_late_words(change: Delta, index: int) -> str:
    told = _Told(change, index)
    segments = counted(told.count("peer_late_acks"), "segment")
    return (
        f"{segments} with nothing else in flight waited for an ACK for up to"
        f" {told.time('peer_late_acks_longest_us')}, the least was {told.time('least_ack_us')}:"
        " the peer delayed it, or the path did"
    )


def reordering_words(change: Delta, index: int) -> str:
    told, there = _Told(change, index), int(_on_the_way_out(change)[index])
    here = told.count("reordered")
    of = f"{here} of {counted(told.count('data_arrived'), 'data segment')} that arrived"
    words = [f"{of} had been sent before one that came earlier"] if here else []
    out = f"on the way out {counted(there, 'time')}"
    words += [f"{out}: SACK told of later bytes, and none was sent again"] if there else []
    return "; ".join(words)


def marks_words(change: Delta, index: int) -> str:
    told = _Told(change, index)
    came, plain = told.count("ce_arrived"), not told.count("accurate_ecn")
    words = [f"{counted(came, 'segment')} arrived with CE"] if came else []
    words += told.flags("ece_sent", "echoed with ECE", "cwr_arrived") if plain else []
    words += told.flags("ece_arrived", "came back with ECE", "cwr_sent") if plain else []
    return "; ".join(words)


def keepalive_seen_words(change: Delta, index: int) -> str:
    told = _Told(change, index)
    words = []
    if sent := told.count("keepalives"):
        answered = told.count("keepalives_answered")
        slowest = f", the slowest after {told.time('keepalives_longest_us')}" if answered else ""
        words.append(f"{sent} sent, {answered} answered{slowest}")
    if came := told.count("peer_keepalives"):
        slowest = told.time("peer_keepalives_longest_us")
        words.append(f"{came} came from the peer, and were answered within {slowest}")
    return "; ".join(words)


def acked_again_words(change: Delta, index: int) -> str:
    told = _Told(change, index)
    segments = counted(told.count("acked_again"), "segment")
    again = f"{segments} ({size(told.amount('acked_again_bytes'))}) came again"
    return f"{again} although the ACK had left: it was lost, or late"


class _Told:
    """The facts of one connection."""

    def __init__(self, change: Delta, index: int) -> None:
        self._change, self._index = change, index

    def amount(self, name: str) -> float:
        return float(self._change.fact(name)[self._index])

    def count(self, name: str) -> int:
        return int(self.amount(name))

    def time(self, name: str) -> str:
        return duration(self.amount(name))

    def flags(self, name: str, words: str, ended: str) -> Iterator[str]:
        """Yield how many segments echoed marks, and how often that was confirmed (CWR)."""
        if count := self.count(name):
            yield f"{count} {words}, {self.count(ended)} confirmed with CWR"
