"""Sentences: what each event of a connection means, one function a kind.

The parameters are the columns that are told, and named like them.
"""

from __future__ import annotations

from collections.abc import Callable

from tcprism.events import Part, wording
from tcprism.events.kinds import kind_name
from tcprism.events.names import endpoint
from tcprism.events.units import counted, duration, size
from tcprism.sinks.text_details import each

_CAUSES = {
    "rto": "no acknowledgement came before the retransmission timer expired",
    "fast": "acknowledgements of later bytes showed that it was lost",
    "tlp": "nothing came back for a while, and the kernel repeats the last segment to provoke an"
    " answer (a tail loss probe)",
    "syn": "nobody answered the request for a connection",
    "syn-ack": "nobody acknowledged that the connection was accepted",
    "unknown": "why is not known",
}


def sentences(part: Part) -> list[str]:
    """Return a sentence an event."""
    texts = [""] * len(part)
    kinds = part.rows["kind"].tolist()
    for number in set(kinds):
        places = [place for place, kind in enumerate(kinds) if kind == number]
        one = part.take(part.rows["kind"] == number)
        write = _SENTENCES.get(kind_name(number))
        told = each(write, one) if write else [kind_name(number)] * len(one)
        for place, text in zip(places, told, strict=True):
            texts[place] = text
    return texts


def _send(bytes: int, requested: int | None, duration_ns: int | None, error: str | None) -> str:
    if error:
        return f"A write failed: {error}."
    of = f" of {size(requested)}" if requested is not None and requested > bytes else ""
    return f"Wrote {size(bytes)}{of}{_within(duration_ns)}."


def _recv(bytes: int, unread_us: int | None, duration_ns: int | None, error: str | None) -> str:
    if error:
        return f"A read failed: {error}."
    if not bytes:
        return "Read the end of the stream: the other end writes no more."
    waited = "" if unread_us is None else f", which lay unread for {duration(unread_us)}"
    return f"Read {size(bytes)}{waited}{_within(duration_ns)}."


def _tls_send(bytes: int) -> str:
    return f"Gave {size(bytes)} to its TLS library to encrypt."


def _tls_recv(bytes: int) -> str:
    return f"Got {size(bytes)} from its TLS library, decrypted."


def _within(duration_ns: int | None) -> str:
    return "" if duration_ns is None else f"; the call took {duration(duration_ns / 1000)}"


def _acked(bytes: int, unsent_us: int | None, unacked_us: int | None) -> str:
    queued = f" They had waited {duration(unsent_us)} to leave." if unsent_us else ""
    later = "" if unacked_us is None else f", {duration(unacked_us)} after it left"
    return f"The last byte of a write of {size(bytes)} was acknowledged{later}.{queued}"


def _transmit(bytes: int, seq: int, segs: int, flags: str | None, cause: str | None) -> str:
    many = f" in {segs} segments" if segs > 1 else ""
    probe = ", new data as a tail loss probe" if cause == "tlp" else ""
    if not bytes:
        return f"A segment without data left ({flags or 'no flags'})."
    return f"{size(bytes)}{many} left, from sequence number {seq} on ({flags or '-'}){probe}."


def _receive(
    bytes: int,
    seq: int,
    flags: str | None,
    window: int | None,
    arrival: str | None,
    ecn: str | None,
) -> str:
    unusual = arrival not in (None, "unknown", "in_order")
    how = f", {str(arrival).replace('_', ' ')}" if unusual else ""
    if ecn == "ce":
        how += ", marked on the way (CE): the path is congested"
    if window == 0 and not {"SYN", "RST"} & {*(flags or "").split("|")}:
        how += "; its sender takes no more data for now (window 0)"
    if not bytes:
        return f"A segment without data arrived ({flags or 'no flags'}){how}."
    return f"{size(bytes)} arrived, from sequence number {seq} on ({flags or '-'}){how}."


def _retransmit(
    ts_ns: int,
    bytes: int,
    cause: str | None,
    attempt: int | None,
    duplicate_acks: int | None,
    sack_blocks: str | None,
    duplicate_ack_last_ts_ns: int | None,
    message_offset: int | None,
    message_bytes: int | None,
) -> str:
    why = _CAUSES.get(cause or "unknown", cause or "")
    if acks := wording.after_acks(ts_ns, duplicate_acks, sack_blocks, duplicate_ack_last_ts_ns):
        why += f" ({acks})"
    what = size(bytes) if bytes else "A segment without data"
    of = ""
    if message_offset is not None and message_bytes is not None:
        end = min(message_offset + bytes, message_bytes)
        of = f" (bytes {message_offset} to {end - 1} of a write of {size(message_bytes)})"
    times = f", for the {_ordinal(attempt - 1)} time" if attempt and attempt > 2 else ""
    verb = "were" if bytes else "was"
    return f"{what}{of} {verb} sent again{times}: {why}."


def _ordinal(number: int) -> str:
    ends = {1: "st", 2: "nd", 3: "rd"}
    end = "th" if number % 100 in (11, 12, 13) else ends.get(number % 10, "th")
    return f"{number}{end}"


def _undo(undone: int) -> str:
    return (
        f"An acknowledgement showed that {counted(undone, 'retransmission')} had not been needed."
    )


def _drop(outgoing: bool, reason: str | None, bytes: int) -> str:
    where = "on its way out" if outgoing else "as it came in"
    because = f": {reason}" if reason else ""
    return f"The kernel dropped a packet with {size(bytes)} {where}{because}."


def _connect(
    new_state: str | None, error: str | None, elapsed_ns: int | None, total_retrans: int
) -> str:
    text = wording.connect(new_state, error, elapsed_ns, total_retrans)
    if new_state != "ESTABLISHED":
        return f"The connection {text}."
    took = "" if elapsed_ns is None else f" after {duration(elapsed_ns / 1000)}"
    return f"The connection was established{took}."


def _accept(srtt_us: int | None) -> str:
    trip = "" if srtt_us is None else f"; the round trip took {duration(srtt_us)}"
    return f"A connection was accepted{trip}."


def _close(ending: str | None, error: str | None, bytes_sent: int, bytes_received: int) -> str:
    how = wording.how_it_ended(ending, error)
    return f"Closed ({how}): {size(bytes_sent)} sent in all, {size(bytes_received)} received."


def _reset(sent: bool, reset_reason: str | None) -> str:
    because = f": {reset_reason}" if reset_reason else ""
    return f"A reset was {'sent' if sent else 'received'}{because}."


def _state(old_state: str | None, new_state: str | None) -> str:
    return f"The TCP state changed from {old_state or '-'} to {new_state or '-'}."


def _translate(
    translated_local_ip: str,
    translated_local_port: int,
    translated_remote_ip: str,
    translated_remote_port: int,
) -> str:
    source = endpoint(translated_local_ip, translated_local_port)
    destination = endpoint(translated_remote_ip, translated_remote_port)
    return f"NAT on this host sends its packets from {source} to {destination}."


_SENTENCES: dict[str, Callable[..., str]] = {
    "send": _send,
    "recv": _recv,
    "tls_send": _tls_send,
    "tls_recv": _tls_recv,
    "acked": _acked,
    "transmit": _transmit,
    "receive": _receive,
    "retransmit": _retransmit,
    "undo": _undo,
    "drop": _drop,
    "connect": _connect,
    "accept": _accept,
    "close": _close,
    "reset": _reset,
    "state": _state,
    "translate": _translate,
}
