"""Rules: what may limit a connection, from the kernel's own counters.

A rule says in which share of the time something held a connection up. It speaks up from its
threshold on, and then has to say the numbers that prove it. docs/explain.md has the sources.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tcprism.diagnosis.delta import Delta, Numbers, microseconds, ratio
from tcprism.events.units import known_duration, percent, size

MUCH_RETRANSMITTED = 0.01
STORM_RETRANSMITTED = 0.2
STORM_SEGMENTS = 50
BLOATED = 4  # times the least round-trip time
BLOATED_US = 20_000
SMALL_PAYLOAD = 0.1  # of a full segment
SMALL_SEGMENTS = 100
SOME = 0.2
MOST = 0.5


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that may limit a connection.

    `share` gives, per connection, the share of the time in which it did. `words` gives the numbers
    that prove it for one of them. `accuses` is False where TCP and the network are cleared.
    """

    name: str
    label: str
    title: str
    threshold: float
    share: Callable[[Delta], Numbers]
    words: Callable[[Delta, int], str]
    accuses: bool = True


def _seen(condition: str) -> Callable[[Delta], Numbers]:
    return lambda change: change.share_seen(condition)


def _time(counter: str) -> Callable[[Delta], Numbers]:
    return lambda change: change.share_of_time(counter)


def _again(change: Delta) -> Numbers:
    """Segments sent again, of the data segments sent."""
    again = change.delta("total_retrans")
    return ratio(again, np.maximum(change.delta("data_segs_out"), again))


def _storm(change: Delta) -> Numbers:
    many = change.delta("total_retrans") >= STORM_SEGMENTS
    return np.where(many, _again(change), 0)


def _unheld(change: Delta) -> Numbers:
    """Share of the time in which data was on its way, held up by no window or buffer of an end."""
    held = change.share_of_time("rwnd_limited_us") + change.share_of_time("sndbuf_limited_us")
    return (change.share_of_time("busy_us") - held).clip(0)


def _lossy(change: Delta) -> Numbers:
    much = _again(change) >= MUCH_RETRANSMITTED
    return np.where(much, _unheld(change), 0)


def _queueing(change: Delta) -> Numbers:
    """Share of the round-trip time that is waiting in queues, while data is on its way."""
    srtt, least = (microseconds(change.after, name) for name in ("srtt_us", "min_rtt_us"))
    with np.errstate(invalid="ignore"):
        bloated = (srtt >= BLOATED * least) & (srtt - least >= BLOATED_US)
        waiting = ratio(np.nan_to_num(srtt - least), np.nan_to_num(srtt))
    return np.where(bloated & (_unheld(change) >= SOME), waiting, 0)


def _path(change: Delta) -> Numbers:
    held = np.minimum(change.share_seen("held_back"), _unheld(change))
    return np.where(_again(change) < MUCH_RETRANSMITTED, held, 0)


def _small(change: Delta) -> Numbers:
    """Share of each segment that stays empty, where many are sent."""
    segments = change.delta("data_segs_out")
    full = segments * change.after["mss"]
    filled = ratio(change.delta("bytes_sent"), full)
    wasted = (segments >= SMALL_SEGMENTS) & (full > 0) & (filled <= SMALL_PAYLOAD)
    return np.where(wasted, 1 - filled, 0)


def _nothing_to_send(change: Delta) -> Numbers:
    idle = 1 - change.share_of_time("busy_us")
    counted = (change.after["sndbuf"] > 0) & (change.elapsed_us > 0)  # else rebuilt from events
    return np.where((change.new_bytes > 0) & counted, idle, 0)


def _queue_words(change: Delta, index: int) -> str:
    row = change.after[index]
    return f"{size(row['unread'])} lie unread, the window left is {size(row['rcv_wnd'])}"


def _window_words(change: Delta, index: int) -> str:
    closed = change.share_seen("zero_window")[index]
    zero = f", closed in {percent(closed)} of the looks" if closed else ""
    return f"the window is {size(change.after['snd_wnd'][index])}{zero}"


def _buffer_words(change: Delta, index: int) -> str:
    return f"the send buffer has room for {size(change.after['sndbuf'][index])}"


def _retransmit_words(change: Delta, index: int) -> str:
    again, sent = (int(change.delta(n)[index]) for n in ("total_retrans", "data_segs_out"))
    row = change.after[index]
    return f"{again} of {sent} segments sent again, the congestion window is {row['cwnd']} segments"


def _rtt_words(change: Delta, index: int) -> str:
    srtt, least = (
        known_duration(microseconds(change.after, name)[index])
        for name in ("srtt_us", "min_rtt_us")
    )
    return f"a round trip takes {srtt}, at the least {least}"


def _path_words(change: Delta, index: int) -> str:
    row = change.after[index]
    control = row["congestion"].split(b"\0")[0].decode("ascii", "replace")
    window = f"{control} holds data back, its window is {row['cwnd']} segments"
    return f"{window}, {_rtt_words(change, index)}"


def _timeout_words(change: Delta, index: int) -> str:
    row = change.after[index]
    after = known_duration(row["rto_us"])
    return f"{row['icsk_retransmits']} timeouts in a row, the next after {after}"


def _nagle_words(change: Delta, index: int) -> str:
    waits = percent(change.share_seen("nagle_waits")[index])
    return f"a piece below {size(change.after['mss'][index])} waited in {waits} of the looks"


def _small_words(change: Delta, index: int) -> str:
    sent, segments = change.delta("bytes_sent")[index], change.delta("data_segs_out")[index]
    room = size(change.after["mss"][index])
    return f"{size(sent / segments)} a segment, {int(segments)} segments, room for {room} each"


def _application_words(change: Delta, index: int) -> str:
    busy = percent(change.share_of_time("busy_us")[index])
    return f"there was data to send in {busy} of the time"


def _backlog_words(change: Delta, index: int) -> str:
    row = change.after[index]
    return f"{row['backlog']} wait to be accepted, {row['backlog_limit']} may"


# The first one from its threshold on is what the table shows.
RULES = (
    Rule(
        "backlog",
        "accept queue",
        "the application here accepts too slowly",
        SOME,
        _seen("backlog_full"),
        _backlog_words,
    ),
    Rule(
        "syn-unanswered",
        "no answer",
        "the peer does not answer the SYN",
        SOME,
        _seen("syn_unanswered"),
        _timeout_words,
    ),
    Rule(
        "unanswered",
        "no answer",
        "the peer acknowledges nothing any more",
        SOME,
        _seen("unanswered"),
        _timeout_words,
    ),
    Rule(
        "slow-reader-here",
        "reader here",
        "the application here reads too slowly",
        MOST,
        _seen("reader_behind"),
        _queue_words,
    ),
    Rule(
        "retransmission-storm",
        "storm",
        "a large part of what is sent is sent again",
        STORM_RETRANSMITTED,
        _storm,
        _retransmit_words,
    ),
    Rule(
        "receiver-window",
        "peer window",
        "the peer's receive window is full",
        SOME,
        _time("rwnd_limited_us"),
        _window_words,
    ),
    Rule(
        "send-buffer",
        "send buffer",
        "the send buffer is too small for the path",
        SOME,
        _time("sndbuf_limited_us"),
        _buffer_words,
    ),
    Rule(
        "nagle",
        "Nagle",
        "small writes wait for acknowledgements (Nagle's algorithm)",
        SOME,
        _seen("nagle_waits"),
        _nagle_words,
    ),
    Rule(
        "loss",
        "loss",
        "losses keep the congestion window small",
        SOME,
        _lossy,
        _retransmit_words,
    ),
    Rule(
        "bufferbloat",
        "queues",
        "packets wait in queues on the path",
        MOST,
        _queueing,
        _rtt_words,
    ),
    Rule(
        "path",
        "path",
        "the path carries no more",
        MOST,
        _path,
        _path_words,
    ),
    Rule(
        "small-segments",
        "small writes",
        "nearly empty segments waste the path",
        1 - SMALL_PAYLOAD,
        _small,
        _small_words,
    ),
    Rule(
        "application",
        "application",
        "the application has nothing to send",
        MOST,
        _nothing_to_send,
        _application_words,
        accuses=False,
    ),
)

LABELS = ("", *(rule.label for rule in RULES))


def limits(change: Delta) -> NDArray[np.int64]:
    """Return, per connection, the place in LABELS of what limits it most: 0 where nothing does."""
    found = np.zeros(len(change), np.int64)
    for number, rule in reversed([*enumerate(RULES, 1)]):
        found[rule.share(change) >= rule.threshold] = number
    return found
