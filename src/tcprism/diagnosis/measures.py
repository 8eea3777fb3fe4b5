"""Measures: for what share of the time something that counters show held connections up.

docs/explain.md has where the thresholds come from.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tcprism.diagnosis.delta import (
    ESTABLISHED,
    SYN_SENT,
    Delta,
    Flags,
    Numbers,
    Rows,
    microseconds,
    ratio,
)

LEAST_SNAPSHOTS = 5  # fewer prove nothing about a state
LEAST_US = 500_000  # nor do counters of a shorter time

MUCH_RETRANSMITTED = 0.01
STORM_RETRANSMITTED = 0.2
STORM_SEGMENTS = 50
STALL_US = 100_000  # every timer runs for longer (TCP_RTO_MIN is 200 ms)
SYN_TIMEOUT_US = 1_000_000  # RFC 6298, section 2
BLOATED = 4  # times the least round-trip time
BLOATED_US = 20_000
SMALL_WRITES = 0.5  # of a full segment, on average
SMALL_PAYLOAD = 0.1  # of a full segment
SMALL_SEGMENTS = 100  # in all, and a second
SMALL_UNANSWERED = 4  # times as many segments with payload out as in
SLOW_US = 1_000  # an answer that comes sooner is no slow one
LONG_US = 1_000_000  # one that takes longer needs no others to prove it
LEAST_ANSWERS = 3
FIRST_SEGMENTS = 2  # as many may be a first request
SOME = 0.2
MOST = 0.5
NEARLY_ALL = 0.9


def enough(change: Delta, from_snapshots: bool = False) -> Flags:
    """Tell which connections were watched for long enough, and looked at often enough."""
    if change.snapshots is None:
        return np.ones(len(change), np.bool_)
    watched: Flags = change.elapsed_us >= LEAST_US
    return watched & (change.snapshots >= LEAST_SNAPSHOTS) if from_snapshots else watched


def seen(condition: str) -> Callable[[Delta], Numbers]:
    return lambda change: change.share_seen(condition)


def time(counter: str) -> Callable[[Delta], Numbers]:
    return lambda change: change.share_of_time(counter)


def repeated(change: Delta) -> Numbers:
    """Retransmitted segments that had already arrived: the peer reported it, or it was seen."""
    arrived = np.maximum(change.delta("dsack_dups"), change.fact("in_vain"))
    return np.minimum(arrived, change.delta("total_retrans"))


def of_sent(change: Delta, segments: Numbers) -> Numbers:
    sent = np.maximum(change.delta("data_segs_out"), change.delta("total_retrans"))
    return ratio(segments, sent)


def again(change: Delta) -> Numbers:
    """Segments retransmitted because of loss, as a share of the data segments sent."""
    return of_sent(change, change.delta("total_retrans") - repeated(change))


def storm(change: Delta) -> Numbers:
    many = change.delta("total_retrans") >= STORM_SEGMENTS
    return np.where(many, again(change), 0)


def spurious(change: Delta) -> Numbers:
    """Share of retransmissions that had already arrived, if it is not negligible."""
    in_vain = repeated(change)
    share = ratio(in_vain, change.delta("total_retrans"))
    return np.where(of_sent(change, in_vain) >= MUCH_RETRANSMITTED, share, 0)


def stalled(change: Delta) -> Numbers:
    """Share of the time in which an end waited for its timer to send something again."""
    return ratio(change.fact("stalled_us"), change.elapsed_us).clip(0, 1)


def unheld(change: Delta) -> Numbers:
    """Share of the time in which data was on its way, held up by no window or buffer of an end."""
    held = change.share_of_time("rwnd_limited_us") + change.share_of_time("sndbuf_limited_us")
    return (change.share_of_time("busy_us") - held).clip(0)


def lossy(change: Delta) -> Numbers:
    """A request needs no large window: only where data waits for one do losses cost anything."""
    much = again(change) >= MUCH_RETRANSMITTED
    return np.where(much & (change.share_seen("held_back") >= SOME), unheld(change), 0)


def queueing(change: Delta) -> Numbers:
    """Share of the round-trip time that is waiting in queues, while data is on its way."""
    srtt, least = (microseconds(change.after, name) for name in ("srtt_us", "min_rtt_us"))
    with np.errstate(invalid="ignore"):
        bloated = (srtt >= BLOATED * least) & (srtt - least >= BLOATED_US)
        waiting = ratio(np.nan_to_num(srtt - least), np.nan_to_num(srtt))
        many = change.share_seen("many_in_flight") >= SOME
    there = bloated & many & (unheld(change) >= SOME) & ~is_loopback(change.after)
    return np.where(there, waiting, 0)


def is_loopback(rows: Rows) -> Flags:
    """Tell which connections never leave this host: on those no packet waits in a queue."""
    loopback: Flags = (rows["local_ip"] == rows["remote_ip"]).all(axis=1)
    loopback |= (rows["family"] == 4) & (rows["local_ip"][:, 12] == 127)
    return loopback


def path(change: Delta) -> Numbers:
    held = np.minimum(change.share_seen("held_back"), unheld(change))
    return np.where(again(change) < MUCH_RETRANSMITTED, held, 0)


def filled(change: Delta) -> Numbers:
    """Part of a full segment that the segments with payload had in them."""
    return ratio(change.delta("bytes_sent"), change.delta("data_segs_out") * change.after["mss"])


def nagle(change: Delta) -> Numbers:
    """Looks in which a small piece waited; of a stream of full segments that is only the last."""
    small_ones = filled(change) <= SMALL_WRITES
    return np.where(small_ones, change.share_seen("nagle_waits"), 0)


def small(change: Delta) -> Numbers:
    """Share of each segment that stays empty, where many are sent and nothing answers each."""
    segments = change.delta("data_segs_out")
    often = ratio(segments, change.elapsed_us) * 1e6 >= SMALL_SEGMENTS
    alone = segments >= SMALL_UNANSWERED * change.delta("data_segs_in")
    wasted = (segments >= SMALL_SEGMENTS) & (change.after["mss"] > 0) & often & alone
    wasted &= filled(change) <= SMALL_PAYLOAD
    return np.where(wasted, 1 - filled(change), 0)


def nothing_to_send(change: Delta) -> Numbers:
    idle = 1 - change.share_of_time("busy_us")
    counted = (change.after["sndbuf"] > 0) & (change.elapsed_us > 0)  # else rebuilt from events
    return np.where((change.new_bytes > 0) & counted, idle, 0)


def stalls(change: Delta) -> Flags:
    """Tell where timers held a connection up: of a short one, too, if it was a whole timeout."""
    long = enough(change) | (change.fact("stalled_us") >= STALL_US)
    proven: Flags = (stalled(change) >= SOME) & long
    return proven


def syn_again(change: Delta) -> Flags:
    """If an established connection sent no payload, it retransmitted its first segment."""
    counted = change.after["sndbuf"] > 0  # else rebuilt from events
    again = counted & (change.delta("total_retrans") > 0) & (change.after["bytes_retrans"] == 0)
    stands = (change.after["state"] == ESTABLISHED) & (change.before["state"] != ESTABLISHED)
    connected = change.after["state"] != SYN_SENT
    said = (change.fact("syns_again") > 0) & (change.fact("connect_us") > 0)
    proven: Flags = (again & stands) | (said & connected)
    return proven


def connecting(change: Delta) -> Numbers:
    least = np.where(syn_again(change), SYN_TIMEOUT_US, 0)
    return ratio(np.maximum(change.fact("connect_us"), least), change.elapsed_us).clip(0, 1)


def no_accept(change: Delta) -> Numbers:
    """Connections wait in each snapshot, none was accepted, and they do not get fewer."""
    known = change.facts.get("accepts")
    if known is None:  # one snapshot does not tell whether anybody accepts
        return np.zeros(len(change))
    nobody = (known == 0) & (change.after["backlog"] >= change.before["backlog"])
    return np.where(nobody, change.share_seen("backlog_waits"), 0)


def left_open(change: Delta) -> Numbers:
    idle = (change.delta("bytes_sent") == 0) & (change.delta("bytes_received") == 0)
    return np.where(idle, change.share_seen("close_wait"), 0)
