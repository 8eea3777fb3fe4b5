"""Words: the numbers that prove what a rule says about one connection."""

from __future__ import annotations

import numpy as np

from tcprism.diagnosis.answers import due_us
from tcprism.diagnosis.delta import Delta, microseconds
from tcprism.diagnosis.measures import SLOW_US, repeated
from tcprism.events.units import duration, known_duration, percent, size


def syn_words(change: Delta, index: int) -> str:
    took = change.fact("connect_us")[index]
    again = int(max(change.fact("syns_again")[index], change.delta("total_retrans")[index], 1))
    connecting = f"connecting took {took / 1000:,.0f} ms" if took else "connecting took 1 s or more"
    return f"{connecting}; the first segment was retransmitted {again} times"


def answer_words(change: Delta, index: int, side: str) -> str:
    """Say how many answers there were and how long they took."""
    count = int(change.fact(f"{side}_count")[index])
    if not count:
        return ""
    median, longest = (change.fact(f"{side}_{n}_us")[index] for n in ("median", "longest"))
    slowest = change.words(f"{side}_slowest", index)
    which = f" ({slowest})" if slowest else ""
    many = f"{count} answers, half of them after {duration(median)} or more"
    return (
        f"{many}, the slowest after {duration(longest)}{which}"
        if count > 1
        else (f"an answer after {duration(longest)}{which}")
    )


def peer_words(change: Delta, index: int) -> str:
    since = due_us(change, "asked")[index]
    due = f"has waited {duration(since)} for an answer to what it sent"
    if request := change.words("asked_due", index):
        due = f"{request} has waited {duration(since)} for its response"
    due += ", acknowledged" if change.after["sndbuf"][index] else ""  # else rebuilt from events
    if reader := change.words("asked_reader", index):
        due += f" {reader}"
    words = [due] if since >= SLOW_US else []
    if answered := answer_words(change, index, "asked"):
        trip = known_duration(microseconds(change.after, "srtt_us")[index])
        words.append(answered + (f", beyond the {trip} that the network takes" if trip else ""))
    stalled = change.fact("asked_stalled_us")[index]
    if stalled:
        words.append(f"it waited {duration(stalled)} more for lost segments to be retransmitted")
    if where := change.words("queued_at", index):
        words.append(f"the connection is still in the accept queue of {where}")
    return "; ".join(words)


def here_words(change: Delta, index: int) -> str:
    since = due_us(change, "served")[index]
    request = change.words("served_due", index) or "a request"
    due = f"read {request} {duration(since)} ago and has not answered"
    words = [due] if since >= SLOW_US else []
    words += filter(None, [answer_words(change, index, "served")])
    words += filter(None, [change.words("served_meanwhile", index)])
    ran = change.facts.get("cpu_us")
    if ran is not None and not np.isnan(ran[index]) and change.elapsed_us[index] > 0:
        share = percent(float(ran[index] / change.elapsed_us[index]))
        words.append(f"its process ran for {share} of the watch")
    return "; ".join(words)


def unaccepted_words(change: Delta, index: int) -> str:
    where = change.words("queued_at", index)
    return f"nobody has the peer's socket open, and connections wait at the listener of {where}"


def no_accept_words(change: Delta, index: int) -> str:
    return f"{change.after['backlog'][index]} wait to be accepted, and nobody has accepted any"


def left_open_words(change: Delta, index: int) -> str:
    since = duration(change.after["last_data_recv_us"][index])
    return f"CLOSE_WAIT, nothing is left to read or to send; the last data came {since} ago"


def keepalive_words(change: Delta, index: int) -> str:
    return f"{change.after['probes_out'][index]} keepalive probes in a row without an answer"


def queue_words(change: Delta, index: int) -> str:
    row = change.after[index]
    return f"{size(row['unread'])} are unread, the remaining window is {size(row['rcv_wnd'])}"


def window_words(change: Delta, index: int) -> str:
    closed = change.share_seen("zero_window")[index]
    zero = f", closed in {percent(closed)} of the snapshots" if closed else ""
    return f"the window is {size(change.after['snd_wnd'][index])}{zero}"


def buffer_words(change: Delta, index: int) -> str:
    return f"the send buffer has room for {size(change.after['sndbuf'][index])}"


def retransmit_words(change: Delta, index: int) -> str:
    again, sent = (int(change.delta(n)[index]) for n in ("total_retrans", "data_segs_out"))
    window = f"the congestion window is {change.after['cwnd'][index]} segments"
    spurious = int(repeated(change)[index])
    besides = f", {spurious} of them spurious" if spurious else ""
    where = change.words("where", index)
    text = f"{again} of {sent} segments retransmitted{besides}, {window}"
    return f"{text}; {where}" if where else text


def spurious_words(change: Delta, index: int) -> str:
    again, arrived = int(change.delta("total_retrans")[index]), int(repeated(change)[index])
    return f"{arrived} of {again} retransmitted segments had already arrived: they were not lost"


def stalled_words(change: Delta, index: int) -> str:
    spent = duration(change.fact("stalled_us")[index])
    return f"it waited {spent} for retransmission timers ({change.words('causes', index)})"


def rtt_words(change: Delta, index: int) -> str:
    srtt, least = (
        known_duration(microseconds(change.after, name)[index])
        for name in ("srtt_us", "min_rtt_us")
    )
    return f"a round trip takes {srtt}, at least {least}"


def path_words(change: Delta, index: int) -> str:
    row = change.after[index]
    control = row["congestion"].split(b"\0")[0].decode("ascii", "replace")
    window = f"{control} holds data back; its window is {row['cwnd']} segments"
    return f"{window}, {rtt_words(change, index)}"


def timeout_words(change: Delta, index: int) -> str:
    row = change.after[index]
    after = known_duration(row["rto_us"])
    return f"{row['icsk_retransmits']} timeouts in a row, the next after {after}"


def nagle_words(change: Delta, index: int) -> str:
    waits = percent(change.share_seen("nagle_waits")[index])
    return f"a piece below {size(change.after['mss'][index])} waited in {waits} of the snapshots"


def small_words(change: Delta, index: int) -> str:
    sent, segments = change.delta("bytes_sent")[index], change.delta("data_segs_out")[index]
    room = size(change.after["mss"][index])
    return f"{size(sent / segments)} per segment, {int(segments)} segments, room for {room} each"


def application_words(change: Delta, index: int) -> str:
    busy = percent(change.share_of_time("busy_us")[index])
    return f"there was data to send {busy} of the time"


def backlog_words(change: Delta, index: int) -> str:
    row = change.after[index]
    return f"{row['backlog']} wait to be accepted, the limit is {row['backlog_limit']}"
