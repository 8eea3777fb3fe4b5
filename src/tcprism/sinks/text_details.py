"""What stands behind who and where on a line of text, per kind of event.

Messages and segments come by the hundred thousand: whole columns are made into texts. The other
kinds have a function each, called for each event, whose parameters are the columns it shows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import cache
from inspect import signature

import numpy as np
from numpy.typing import NDArray

from tcprism.events import Part
from tcprism.events._wire import EventKind
from tcprism.events.columns import BY_NAME
from tcprism.events.names import process
from tcprism.events.units import duration, size

# Takes moments of CLOCK_MONOTONIC in nanoseconds, returns the time of day.
Clock = Callable[[NDArray[np.uint64]], list[str]]

TEXT_CHARACTERS = 40  # of the first bytes of a message
_BYTE = re.compile(r"\\\\|\\x..|[^\\]")  # as escape() writes it
_BYTES = re.compile(f"(?:{_BYTE.pattern})*")


def details(part: Part, clock: Clock) -> list[str]:
    """Return the end of the line of each event of a part."""
    if part.family == "message":
        return _message_texts(part)
    if part.family == "segment":
        return _segment_texts(part)
    texts = np.full(len(part), "", object)
    for kind in np.unique(part.rows["kind"]).tolist():
        rows = np.flatnonzero(part.rows["kind"] == kind)
        texts[rows] = _of_kind(kind, part.take(rows), clock)
    found: list[str] = texts.tolist()
    return found


def _of_kind(kind: int, part: Part, clock: Clock) -> list[str]:
    if part.family == "loss" and kind == EventKind.RETRANSMIT:
        return _retransmit_texts(part, clock)
    write = _WRITERS[part.family].get(kind)
    return [""] * len(part) if write is None else each(write, part)


def each(write: Callable[..., str], part: Part, *given: Iterable[str]) -> list[str]:
    """Call a function for each event with what is given and with the columns it names."""
    names = _parameters(write)[len(given) :]
    return list(map(write, *given, *(BY_NAME[name].to_list(part) for name in names)))


@cache
def _parameters(write: Callable[..., str]) -> tuple[str, ...]:
    return tuple(signature(write).parameters)


def _message_texts(part: Part) -> list[str]:
    """Return the bytes of each message, and what is unusual about it."""
    texts = [f"{count:>7} bytes" for count in part.rows["bytes"].tolist()]
    requested = part.rows["requested"]
    for index in np.flatnonzero(_partly_sent(part)).tolist():
        texts[index] += f" of {requested[index]}"
    _append(texts, part, "unread_us", lambda unread_us: f"unread {duration(unread_us)}")
    _append(texts, part, "flags")
    _append(texts, part, "error")
    return texts


def _partly_sent(part: Part) -> NDArray[np.bool_]:
    """Return which calls sent less than asked. To receive less than the buffer holds is usual."""
    sent = (part.rows["kind"] == EventKind.SEND) & (part.rows["error"] == 0)
    less = part.rows["bytes"] < part.rows["requested"]
    partly: NDArray[np.bool_] = sent & less & ~BY_NAME["requested"].mask(part)
    return partly


def _segment_texts(part: Part) -> list[str]:
    """Return the TCP header of each segment, as far as it is recorded."""
    names = ("bytes", "seq", "end_seq", "ack", "flags", "window")
    columns = [BY_NAME[name].to_list(part) for name in names]
    texts = [
        f"{count:>7} bytes {seq}:{end_seq} ack {ack} {flags or '-'} win {window}"
        for count, seq, end_seq, ack, flags, window in zip(*columns, strict=True)
    ]
    for index in np.flatnonzero(BY_NAME["window"].mask(part)).tolist():
        texts[index] = texts[index].removesuffix("None") + "-"
    for index in np.flatnonzero(part.rows["segs"] > 1).tolist():
        texts[index] += f" segs {part.rows['segs'][index]}"
    _append(texts, part, "error")
    return texts


def _append(texts: list[str], part: Part, name: str, write: Callable[..., str] = str) -> None:
    """Append a column to the texts where it is not null."""
    column = BY_NAME[name]
    present = np.flatnonzero(~column.mask(part))
    for index, value in zip(present.tolist(), column.to_list(part.take(present)), strict=True):
        texts[index] += f" {write(value)}"


def _retransmit_texts(part: Part, clock: Clock) -> list[str]:
    sent_at = clock(BY_NAME["message_ts_ns"].values(part))
    columns = (_segment_texts(part), each(_cause, part), each(_repeated, part, sent_at))
    return list(map("".join, zip(*columns, strict=True)))


def _cause(cause: str | None, attempt: int | None) -> str:
    return f" {cause or '-'}" + (f" #{attempt}" if attempt else "")


def _repeated(
    sent_at: str,
    bytes: int,
    message_pid: int | None,
    message_comm: str | None,
    message_ts_ns: int | None,
    message_offset: int | None,
    message_bytes: int | None,
    message_text: str | None,
) -> str:
    """Tell which bytes of which send a segment repeats, where that is known."""
    if message_offset is None:
        return ""
    when = "a send still going on" if message_ts_ns is None else f"send {sent_at}"
    who = "" if message_pid is None else f" {process(message_comm, message_pid)}"
    first = "" if message_text is None else f" {_quoted(message_text, message_bytes)}"
    return f" {_range(message_offset, bytes, message_bytes)} of {when}{who}{first}"


def _range(offset: int, count: int, message_bytes: int | None) -> str:
    """Return which bytes of a message a segment has; those of later messages are not told."""
    end = offset + count if message_bytes is None else min(offset + count, message_bytes)
    return f"bytes {offset}-{end - 1}"


def _quoted(text: str, message_bytes: int | None) -> str:
    """Return the first bytes of a message, as many as fit; dots stand for the others."""
    fitting = _BYTES.match(text, 0, TEXT_CHARACTERS)
    shown = fitting[0] if fitting else ""
    whole = len(_BYTE.findall(shown)) == message_bytes
    return f'"{shown}{"" if whole else "..."}"'


def _acked(bytes: int, seq: int, unsent_us: int | None, unacked_us: int | None) -> str:
    end_seq = (seq + bytes) % 2**32
    later = "" if unacked_us is None else f" {duration(unacked_us)} later"
    return f"{bytes:>7} bytes {seq}:{end_seq} {_left(unsent_us)}acknowledged{later}"


def _left(unsent_us: int | None) -> str:
    if unsent_us is None:
        return ""
    return f"left after {duration(unsent_us)}, " if unsent_us else "left at once, "


def _undo(bytes: int, seq: int, end_seq: int, undone: int) -> str:
    return f"{bytes:>7} bytes {seq}:{end_seq} undid {counted(undone, 'retransmission')}"


def _drop(
    outgoing: bool, reason: str | None, bytes: int, seq: int, end_seq: int, flags: str | None
) -> str:
    where = "out" if outgoing else "in"
    because = f" {reason}" if reason else ""
    return f"{where}{because} {bytes} bytes {seq}:{end_seq} {flags or '-'}"


def _connect(
    new_state: str | None, error: str | None, elapsed_ns: int | None, total_retrans: int
) -> str:
    if new_state == "ESTABLISHED":
        return _since("in", elapsed_ns) or "established"
    tries = counted(1 + total_retrans, "SYN")
    return f"failed: {why_not_established(error)}{_since(' after', elapsed_ns)}, {tries}"


def why_not_established(error: str | None) -> str:
    """Return why a connect failed; without an error, its process did not wait for the outcome."""
    return error or "given up"


def _accept(srtt_us: int | None) -> str:
    return "established" if srtt_us is None else f"rtt {duration(srtt_us)}"


def _close(
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


def _reset(sent: bool, reset_reason: str | None, old_state: str | None) -> str:
    facts = ("sent" if sent else "received", reset_reason, old_state and f"in {old_state}")
    return " ".join(filter(None, facts))


def _state(old_state: str | None, new_state: str | None) -> str:
    return f"{old_state or '-'} -> {new_state or '-'}"


def _since(word: str, elapsed_ns: int | None) -> str:
    return "" if elapsed_ns is None else f"{word} {duration(elapsed_ns / 1000)}"


def counted(number: int, what: str) -> str:
    """Return a number of things, as in 1 SYN, 3 SYNs."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _snapshot(
    state: str, bytes_sent: int, bytes_received: int, unsent: int, unacked: int, unread: int
) -> str:
    queues = f"{size(unsent)} unsent, {size(unacked)} unacked, {size(unread)} unread"
    return f"{state} sent {size(bytes_sent)}, received {size(bytes_received)}; {queues}"


_WRITERS: dict[str, dict[int, Callable[..., str]]] = {
    "delivery": {EventKind.ACKED: _acked},
    "loss": {EventKind.UNDO: _undo, EventKind.DROP: _drop},
    "connection": {
        EventKind.CONNECT: _connect,
        EventKind.ACCEPT: _accept,
        EventKind.CLOSE: _close,
        EventKind.RESET: _reset,
        EventKind.STATE: _state,
    },
    "snapshot": {EventKind.SNAPSHOT: _snapshot},
}
