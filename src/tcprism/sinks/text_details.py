"""The end of a line of text, after process and addresses, per kind of event.

Messages and segments come by the hundred thousand: whole columns are made into texts. The other
kinds have a function each (`Kind.text`), called for each event, or show the columns that only they
have.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import cache
from inspect import signature

import numpy as np
from numpy.typing import NDArray

from tcprism.events import Part
from tcprism.events._wire import SegmentArrival, SocketSource
from tcprism.events.columns import BY_NAME as COLUMN
from tcprism.events.columns import MESSAGES, TLS, columns_of
from tcprism.events.kinds import BY_NAME, FAMILY_OF_KIND, SENDS, kind_name
from tcprism.events.names import arrival_name, process
from tcprism.events.scopes import shown
from tcprism.events.units import duration
from tcprism.events.wording import after_acks, tcp_options

# Takes moments of CLOCK_MONOTONIC in nanoseconds, returns the time of day.
Clock = Callable[[NDArray[np.uint64]], list[str]]

TEXT_CHARACTERS = 40  # of the first bytes of a message
_BYTE = re.compile(r"\\\\|\\x..|[^\\]")  # as escape() writes it
_BYTES = re.compile(f"(?:{_BYTE.pattern})*")


def details(part: Part, clock: Clock) -> list[str]:
    """Return the end of the line of each event of a part."""
    if part.family in MESSAGES:
        return _message_texts(part)
    if part.family == "segment":
        return _sent_texts(part)
    texts = np.full(len(part), "", object)
    for number in np.unique(part.rows["kind"]).tolist():
        rows = np.flatnonzero(part.rows["kind"] == number)
        texts[rows] = _of_kind(kind_name(number), part.take(rows), clock)
    found: list[str] = texts.tolist()
    return found


def _of_kind(kind: str, part: Part, clock: Clock) -> list[str]:
    if FAMILY_OF_KIND.get(kind) != part.family:  # of a later tcprism
        return [""] * len(part)
    if kind == "retransmit":
        return _retransmit_texts(part, clock)
    write = BY_NAME[kind].text
    return _own_columns(part) if write is None else each(write, part)


def _own_columns(part: Part) -> list[str]:
    """Return what a family's own columns say, each with its name, as in status 200."""
    columns = [column for column in columns_of(part.family) if not column.everywhere]
    values = [column.to_list(part) for column in columns]
    return [
        " ".join(
            f"{column.name} {value}"
            for column, value in zip(columns, row, strict=True)
            if value is not None
        )
        for row in zip(*values, strict=True)
    ]


def each(write: Callable[..., str], part: Part, *given: Iterable[str]) -> list[str]:
    """Call a function for each event with what is given and with the columns it names."""
    names = _parameters(write)[len(given) :]
    return list(map(write, *given, *(shown(part, name) for name in names)))


@cache
def _parameters(write: Callable[..., str]) -> tuple[str, ...]:
    return tuple(signature(write).parameters)


def _message_texts(part: Part) -> list[str]:
    """Return the bytes of each message, and what is unusual about it."""
    texts = [f"{count:>7} bytes" for count in part.rows["bytes"].tolist()]
    requested = part.rows["requested"]
    for index in np.flatnonzero(_partly_sent(part)).tolist():
        texts[index] += f" of {requested[index]}"
    if part.family in TLS:
        for index in np.flatnonzero(part.rows["socket_source"] == SocketSource.NONE).tolist():
            texts[index] += " connection unknown"
    _append(texts, part, "unread_us", lambda unread_us: f"unread {duration(unread_us)}")
    _append(texts, part, "flags")
    _append(texts, part, "error")
    return texts


def _partly_sent(part: Part) -> NDArray[np.bool_]:
    """Return which calls sent less than asked. To receive less than the buffer holds is usual."""
    sent = np.isin(part.rows["kind"], SENDS) & (part.rows["error"] == 0)
    less = part.rows["bytes"] < part.rows["requested"]
    partly: NDArray[np.bool_] = sent & less & ~COLUMN["requested"].mask(part)
    return partly


def _segment_texts(part: Part) -> list[str]:
    """Return the TCP header of each segment, as far as it is recorded."""
    names = ("bytes", "seq", "end_seq", "ack", "flags", "window")
    columns = [COLUMN[name].to_list(part) for name in names]
    texts = [
        f"{count:>7} bytes {seq}:{end_seq} ack {ack} {flags or '-'} win {window}"
        for count, seq, end_seq, ack, flags, window in zip(*columns, strict=True)
    ]
    for index in np.flatnonzero(COLUMN["window"].mask(part)).tolist():
        texts[index] = texts[index].removesuffix("None") + "-"
    for index in np.flatnonzero(part.rows["segs"] > 1).tolist():
        texts[index] += f" segs {part.rows['segs'][index]}"
    _append(texts, part, "ecn")
    _append_options(texts, part)
    _append(texts, part, "error")
    return texts


def _append_options(texts: list[str], part: Part) -> None:
    present = np.flatnonzero(~COLUMN["options"].mask(part))
    told = each(tcp_options, part.take(present)) if len(present) else ()
    for index, text in zip(present.tolist(), told, strict=True):
        texts[index] += f" [{text}]" if text else ""


def _sent_texts(part: Part) -> list[str]:
    """Return the header of each segment, and why it was sent or what of it was new, if unusual."""
    texts = _segment_texts(part)
    _append(texts, part, "cause")
    usual = (SegmentArrival.UNKNOWN, SegmentArrival.IN_ORDER)
    for index in np.flatnonzero(~np.isin(part.rows["arrival"], usual)).tolist():
        texts[index] += f" {arrival_name(part.rows['arrival'][index]).replace('_', ' ')}"
    return texts


def _append(texts: list[str], part: Part, name: str, write: Callable[..., str] = str) -> None:
    """Append a column to the texts where it is not null."""
    column = COLUMN[name]
    present = np.flatnonzero(~column.mask(part))
    for index, value in zip(present.tolist(), column.to_list(part.take(present)), strict=True):
        texts[index] += f" {write(value)}"


def _retransmit_texts(part: Part, clock: Clock) -> list[str]:
    sent_at = clock(COLUMN["message_ts_ns"].values(part))
    columns = (
        *(_segment_texts(part), each(_cause, part)),
        *(each(_after, part), each(_repeated, part, sent_at)),
    )
    return list(map("".join, zip(*columns, strict=True)))


def _cause(cause: str | None, attempt: int | None) -> str:
    return f" {cause or '-'}" + (f" #{attempt}" if attempt else "")


def _after(
    ts_ns: int,
    duplicate_acks: int | None,
    sack_blocks: str | None,
    duplicate_ack_last_ts_ns: int | None,
) -> str:
    because = after_acks(ts_ns, duplicate_acks, sack_blocks, duplicate_ack_last_ts_ns)
    return because and f" (after {because})"


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
