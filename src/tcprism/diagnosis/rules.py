"""Rules: what may limit a connection, in the order in which a table shows it.

A rule measures for what share of the time something held a connection up. At its threshold or above
it reports that, with the numbers that prove it. docs/explain.md has the sources.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tcprism.diagnosis import answers, measures, words
from tcprism.diagnosis import segment_words as seen
from tcprism.diagnosis.delta import Delta, Flags, Numbers
from tcprism.diagnosis.measures import (
    MOST,
    NEARLY_ALL,
    SMALL_PAYLOAD,
    SOME,
    STORM_RETRANSMITTED,
    enough,
)


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that may limit a connection.

    `share` returns, per connection, the share of the time in which it did. `words` returns the
    numbers that prove it for one connection. `accuses` is False for rules that clear TCP and the
    network. `from_snapshots` is True if the share is one of snapshots. `proves`, if set, decides in
    place of the threshold.
    """

    name: str
    label: str
    title: str
    threshold: float
    share: Callable[[Delta], Numbers]
    words: Callable[[Delta, int], str]
    accuses: bool = True
    from_snapshots: bool = False
    proves: Callable[[Delta], Flags] | None = None

    def holds(self, change: Delta) -> Flags:
        """Return, per connection, whether it is proven."""
        if self.proves:
            return self.proves(change)
        proven: Flags = self.share(change) >= self.threshold
        return proven & enough(change, self.from_snapshots)


# The first one that holds is what the table shows.
RULES = (
    Rule(
        "backlog",
        "accept queue",
        "the application here accepts too slowly",
        SOME,
        measures.seen("backlog_full"),
        words.backlog_words,
        from_snapshots=True,
    ),
    Rule(
        "no-accept",
        "accept queue",
        "nobody accepts the connections here",
        NEARLY_ALL,
        measures.no_accept,
        words.no_accept_words,
        from_snapshots=True,
    ),
    Rule(
        "syn-unanswered",
        "no answer",
        "the peer does not answer the SYN",
        SOME,
        measures.seen("syn_unanswered"),
        words.timeout_words,
        from_snapshots=True,
    ),
    Rule(
        "syn-retry",
        "SYN again",
        "the first segment of the connection was lost",
        SOME,
        measures.connecting,
        words.syn_words,
        proves=measures.syn_again,
    ),
    Rule(
        "unanswered",
        "no answer",
        "the peer has stopped acknowledging",
        SOME,
        measures.seen("unanswered"),
        words.timeout_words,
        from_snapshots=True,
    ),
    Rule(
        "half-open",
        "no answer",
        "the peer may be gone (half-open)",
        SOME,
        measures.seen("keepalive_unanswered"),
        words.keepalive_words,
        from_snapshots=True,
    ),
    Rule(
        "close-wait",
        "not closed",
        "the peer has closed and the process here has not",
        NEARLY_ALL,
        measures.left_open,
        words.left_open_words,
        from_snapshots=True,
    ),
    Rule(
        "unaccepted",
        "accept queue",
        "the server has not accepted the connection",
        MOST,
        answers.unaccepted,
        words.unaccepted_words,
    ),
    Rule(
        "slow-reader-here",
        "reader here",
        "the application here reads too slowly",
        MOST,
        measures.seen("reader_behind"),
        words.queue_words,
        from_snapshots=True,
    ),
    Rule(
        "retransmission-storm",
        "storm",
        "much of what is sent is retransmitted",
        STORM_RETRANSMITTED,
        measures.storm,
        words.retransmit_words,
    ),
    Rule(
        "receiver-window",
        "peer window",
        "the peer's receive window is full",
        SOME,
        measures.time("rwnd_limited_us"),
        words.window_words,
    ),
    Rule(
        "send-buffer",
        "send buffer",
        "the send buffer is too small for the path",
        SOME,
        measures.time("sndbuf_limited_us"),
        words.buffer_words,
    ),
    Rule(
        "nagle",
        "Nagle",
        "small writes wait for acknowledgements (Nagle's algorithm)",
        SOME,
        measures.nagle,
        words.nagle_words,
        from_snapshots=True,
    ),
    Rule(
        "loss",
        "loss",
        "losses keep the congestion window small",
        SOME,
        measures.lossy,
        words.retransmit_words,
        from_snapshots=True,
    ),
    Rule(
        "retransmission-wait",
        "loss",
        "it waits for lost segments to be retransmitted",
        SOME,
        measures.stalled,
        words.stalled_words,
        proves=measures.stalls,
    ),
    Rule(
        "bufferbloat",
        "queues",
        "packets wait in queues on the path",
        MOST,
        measures.queueing,
        words.rtt_words,
        from_snapshots=True,
    ),
    Rule(
        "path",
        "path",
        "the path carries no more",
        MOST,
        measures.path,
        words.path_words,
        from_snapshots=True,
    ),
    Rule(
        "small-segments",
        "small writes",
        "nearly empty segments waste the path",
        1 - SMALL_PAYLOAD,
        measures.small,
        words.small_words,
    ),
    Rule(
        "slow-peer",
        "waits for peer",
        "the peer takes its time to answer",
        MOST,
        answers.share("asked"),
        words.peer_words,
        proves=answers.slow("asked"),
    ),
    Rule(
        "slow-here",
        "answer due",
        "the process here takes its time to answer",
        MOST,
        answers.share("served"),
        words.here_words,
        proves=answers.slow("served"),
    ),
    Rule(
        "spurious",
        "spurious",
        "retransmissions were spurious",
        MOST,
        measures.spurious,
        words.spurious_words,
        accuses=False,
    ),
    Rule(
        "application",
        "idle",
        "the application has nothing to send",
        MOST,
        measures.nothing_to_send,
        words.application_words,
        accuses=False,
    ),
)

# What segments prove besides: it need not limit anything.
SEEN = (
    Rule(
        "window-closed",
        "",
        "the peer closed its receive window",
        0,
        seen.of_time("zero_window_us"),
        seen.closed_words,
        accuses=False,
        proves=seen.any_of("zero_windows"),
    ),
    Rule(
        "late-acks-here",
        "",
        "this host acknowledged late",
        0,
        seen.of_time("late_acks_us"),
        seen.late_words,
        accuses=False,
        proves=seen.any_of("late_acks"),
    ),
    Rule(
        "late-acks",
        "",
        "acknowledgements came late",
        0,
        seen.of_time("peer_late_acks_us"),
        seen.peer_late_words,
        accuses=False,
        proves=seen.any_of("peer_late_acks"),
    ),
    Rule(
        "acks-lost",
        "",
        "the peer sent again what was acknowledged",
        0,
        seen.of_segments("acked_again", "data_arrived"),
        seen.acked_again_words,
        accuses=False,
        proves=seen.any_of("acked_again"),
    ),
    Rule(
        "reordering",
        "",
        "segments overtook others on the path",
        0,
        seen.reordering,
        seen.reordering_words,
        accuses=False,
        proves=seen.reordered,
    ),
    Rule(
        "congestion-marks",
        "",
        "the path is congested (ECN)",
        0,
        seen.marks,
        seen.marks_words,
        accuses=False,
        proves=seen.marked,
    ),
    Rule(
        "keepalives",
        "",
        "keepalive probes were sent",
        0,
        seen.of_segments("keepalives", "left"),
        seen.keepalive_seen_words,
        accuses=False,
        proves=seen.any_of("keepalives", "peer_keepalives"),
    ),
)

LABELS = ("", *(rule.label for rule in RULES))


def limits(change: Delta) -> NDArray[np.int64]:
    """Return, per connection, the place in LABELS of what limits it most: 0 if nothing does."""
    found = np.zeros(len(change), np.int64)
    for number, rule in reversed([*enumerate(RULES, 1)]):
        found[rule.holds(change)] = number
    return found
