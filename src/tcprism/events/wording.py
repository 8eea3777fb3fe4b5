"""The end of a line of text, after process and addresses: one function per kind.

Its parameters are the columns that it shows, and named like them.
"""

from __future__ import annotations

from tcprism.events.names import endpoint
from tcprism.events.units import duration, size

_RANGES = 3  # of SACK blocks that a line shows


def tcp_options(
    max_segment_size: int | None,
    window_scale: int | None,
    sack_permitted: bool | None,
    ts_val: int | None,
    ts_ecr: int | None,
    fast_open_cookie_length: int | None,
    accecn_ee0b: int | None,
    accecn_eceb: int | None,
    accecn_ee1b: int | None,
    mptcp: str | None,
    sack: str | None,
) -> str:
    """Return the options of a TCP header that have columns; "" for none."""
    counters = {"EE0B": accecn_ee0b, "ECEB": accecn_eceb, "EE1B": accecn_ee1b}
    found = [
        ("MSS", max_segment_size),
        ("window scale", window_scale),
        ("SACK permitted", "" if sack_permitted else None),
        ("TSval", ts_val),
        ("TSecr", ts_ecr),
        ("Fast Open cookie bytes", fast_open_cookie_length),
        *((f"AccECN {name}", value) for name, value in counters.items()),
        ("MPTCP", mptcp),
        ("SACK", sack),
    ]
    return ", ".join(f"{name} {value}".rstrip() for name, value in found if value is not None)


def acked(bytes: int, seq: int, unsent_us: int | None, unacked_us: int | None) -> str:
    end_seq = (seq + bytes) % 2**32
    later = "" if unacked_us is None else f" {duration(unacked_us)} later"
    return f"{bytes:>7} bytes {seq}:{end_seq} {_left(unsent_us)}acknowledged{later}"


def _left(unsent_us: int | None) -> str:
    if unsent_us is None:
        return ""
    return f"left after {duration(unsent_us)}, " if unsent_us else "left at once, "


def undo(bytes: int, seq: int, end_seq: int, undone: int) -> str:
    return f"{bytes:>7} bytes {seq}:{end_seq} undid {counted(undone, 'retransmission')}"


def after_acks(
    ts_ns: int,
    duplicate_acks: int | None,
    sack_blocks: str | None,
    duplicate_ack_last_ts_ns: int | None,
) -> str:
    """Return which duplicate ACKs came before a retransmission; "" where none was seen."""
    if not duplicate_acks or duplicate_ack_last_ts_ns is None:
        return ""
    before = duration((ts_ns - duplicate_ack_last_ts_ns) / 1000)
    last = "" if duplicate_acks == 1 else "the last "
    text = f"{counted(duplicate_acks, 'duplicate ACK')}, {last}{before} before"
    if not sack_blocks:
        return text
    ranges = sack_blocks.split(", ")
    more = f" and {len(ranges) - _RANGES} more" if len(ranges) > _RANGES else ""
    return f"{text}; SACK {', '.join(ranges[:_RANGES])}{more}"


def drop(
    outgoing: bool, reason: str | None, bytes: int, seq: int, end_seq: int, flags: str | None
) -> str:
    where = "out" if outgoing else "in"
    because = f" {reason}" if reason else ""
    return f"{where}{because} {bytes} bytes {seq}:{end_seq} {flags or '-'}"


def translate(
    translated_local_ip: str,
    translated_local_port: int,
    translated_remote_ip: str,
    translated_remote_port: int,
) -> str:
    source = endpoint(translated_local_ip, translated_local_port)
    return f"to {source} -> {endpoint(translated_remote_ip, translated_remote_port)}"


def connect(
    new_state: str | None, error: str | None, elapsed_ns: int | None, total_retrans: int
) -> str:
    if new_state == "ESTABLISHED":
        return _since("in", elapsed_ns) or "established"
    tries = counted(1 + total_retrans, "SYN")
    return f"failed: {why_not_established(error)}{_since(' after', elapsed_ns)}, {tries}"


def why_not_established(error: str | None) -> str:
    """Return why a connect failed; without an error, its process did not wait for the outcome."""
    return error or "given up"


def accept(srtt_us: int | None) -> str:
    return "established" if srtt_us is None else f"rtt {duration(srtt_us)}"


def close(
    ending: str | None,
    error: str | None,
    elapsed_ns: int | None,
    bytes_sent: int,
    bytes_retrans: int,
    data_segs_out: int,
    bytes_received: int,
    data_segs_in: int,
    total_retrans: int,
    srtt_us: int | None,
    min_rtt_us: int | None,
    congestion: str | None,
) -> str:
    facts = [
        f"{how_it_ended(ending, error)}{_since(' after', elapsed_ns)}",
        f"sent {size(bytes_sent - bytes_retrans)} in {counted(data_segs_out, 'segment')}",
        f"received {size(bytes_received)} in {counted(data_segs_in, 'segment')}",
        f"{total_retrans} sent again" if total_retrans else "",
        _round_trip(srtt_us, min_rtt_us),
        congestion or "",
    ]
    return ", ".join(filter(None, facts))


def how_it_ended(ending: str | None, error: str | None) -> str:
    """Return the end of a connection in words: fin, reset received, ..., or the error's name."""
    if ending == "error" and error:
        return error
    return ending.replace("_", " ") if ending else "closed"


def _round_trip(srtt_us: int | None, min_rtt_us: int | None) -> str:
    if srtt_us is None:
        return ""
    least = "" if min_rtt_us is None else f" (min {duration(min_rtt_us)})"
    return f"rtt {duration(srtt_us)}{least}"


def reset(sent: bool, reset_reason: str | None, old_state: str | None) -> str:
    facts = ("sent" if sent else "received", reset_reason, old_state and f"in {old_state}")
    return " ".join(filter(None, facts))


def state(old_state: str | None, new_state: str | None) -> str:
    return f"{old_state or '-'} -> {new_state or '-'}"


def _since(word: str, elapsed_ns: int | None) -> str:
    return "" if elapsed_ns is None else f"{word} {duration(elapsed_ns / 1000)}"


def counted(number: int, what: str) -> str:
    """Return a number of things, as in 1 SYN, 3 SYNs."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def snapshot(
    state: str, bytes_sent: int, bytes_received: int, unsent: int, unacked: int, unread: int
) -> str:
    queues = f"{size(unsent)} unsent, {size(unacked)} unacked, {size(unread)} unread"
    return f"{state} sent {size(bytes_sent)}, received {size(bytes_received)}; {queues}"
