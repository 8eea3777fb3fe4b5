"""One line per request, below a header: both ends, status, time, bytes, and where the time went."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import BinaryIO

from tcprism.events import Part
from tcprism.events.names import endpoint, process
from tcprism.events.part import HOST
from tcprism.events.requests import SPLIT, asked
from tcprism.events.units import duration, size
from tcprism.sinks.lines import LineSink, TimeOfDay
from tcprism.sinks.text import RESET, color_of
from tcprism.sinks.text_details import each

_ENDS = "{:<21} {:<36}"
_NUMBERS = "{:>8} {:>8} {:>8}"
HEADER = (
    f"{'time':<15} {_ENDS.format('client', 'server')} {_NUMBERS.format('took', 'there', 'back')}"
    " request, status, where the time went\n"
)
_LEAST_SHARE = 0.05  # of the time: smaller parts are not worth a word
_REMEMBERED = 4_096  # texts of what comes again and again: ends, routes, sizes


class RequestLines(LineSink):
    """Writes a line for each request to a binary file. With `color`, failed ones stand out.

    With `hosts`, each says which host saw it.
    """

    header = HEADER

    def __init__(self, file: BinaryIO, *, color: bool, hosts: bool = False) -> None:
        super().__init__(file)
        if hosts:
            self.header = f"{HEADER[:16]}{'host':<12} {HEADER[16:]}"
        self._hosts = hosts
        self._color = color
        self._time = TimeOfDay()

    def lines(self, part: Part, clock_offset_ns: int) -> list[str]:
        """Return the lines of a part's events."""
        line = self._time.begin(part.rows["ts_ns"], clock_offset_ns)
        line.text(" ")
        if self._hosts:
            line.texts(f"{host:<12} " for host in part.derived[HOST].tolist())
        line.texts(each(_ends, part))
        line.text(" ")
        line.texts(each(_numbers, part))
        line.text(" ")
        line.texts(map(self._colored, each(what, part), part.rows["failed"].tolist()))
        line.texts(each(where_time_went, part))
        if part.rows["retransmissions"].any():
            line.texts(each(sent_again, part))
        line.text("\n")
        return line.lines()

    def _colored(self, text: str, failed: int) -> str:
        return f"{color_of('reset')}{text}{RESET}" if failed and self._color else text


def client(comm: str | None, pid: int | None, local_ip: str) -> str:
    """Return who asked."""
    return process(comm, pid) if pid else local_ip


def server(
    server_comm: str | None, server_pid: int | None, remote_ip: str, remote_port: int
) -> str:
    """Return who was asked."""
    at = endpoint(remote_ip, remote_port)
    return f"{process(server_comm, server_pid)} {at}" if server_pid else at


@lru_cache(_REMEMBERED)
def _ends(
    comm: str | None,
    pid: int | None,
    local_ip: str,
    server_comm: str | None,
    server_pid: int | None,
    remote_ip: str,
    remote_port: int,
) -> str:
    asker = client(comm, pid, local_ip)
    return _ENDS.format(asker, server(server_comm, server_pid, remote_ip, remote_port))


def _numbers(request_ns: int | None, request_bytes: int | None, response_bytes: int | None) -> str:
    took = "-" if request_ns is None else duration(request_ns / 1000)
    return f"{took:>8} {_sizes(request_bytes, response_bytes)}"


@lru_cache(_REMEMBERED)
def _sizes(request_bytes: int | None, response_bytes: int | None) -> str:
    there, back = (
        "-" if count is None else size(count) for count in (request_bytes, response_bytes)
    )
    return f"{there:>8} {back:>8}"


@lru_cache(_REMEMBERED)
def what(
    protocol: str,
    method: str | None,
    resource: str | None,
    status: str | None,
    request_state: str,
    waiting_for: str | None,
) -> str:
    """Return what was asked for, with which outcome."""
    texts = [asked(protocol, method, resource), status]
    if request_state != "complete" and not (request_state == "no response" and not status):
        texts.append(f"({request_state}{f': {waiting_for}' if waiting_for else ''})")
    return " ".join(filter(None, texts))


def where_time_went(
    request_ns: int | None,
    send_queue_ns: int | None,
    network_there_ns: int | None,
    server_queue_ns: int | None,
    server_ns: int | None,
    network_back_ns: int | None,
    unread_ns: int | None,
    transfer_ns: int | None,
    server_source: str | None,
) -> str:
    """Return the parts of the time that matter, in their order."""
    if not request_ns:
        return ""
    spans = (
        send_queue_ns,
        network_there_ns,
        server_queue_ns,
        server_ns,
        network_back_ns,
        unread_ns,
        transfer_ns,
    )
    least = _LEAST_SHARE * request_ns
    told = [
        f"{name} {duration(span / 1000)}"
        for name, span in zip(part_names(server_source), spans, strict=True)
        if span and span >= least
    ]
    return f"  {', '.join(told)}" if told else ""


@cache
def part_names(server_source: str | None) -> tuple[str, ...]:
    """Return what the parts of SPLIT are called."""
    names = {name: name.replace("_", " ") for name in SPLIT}
    if server_source == "client":
        names["server"] = "server and network"
    return tuple(names.values())


def sent_again(
    retransmissions: int, retransmission_wait_ns: int | None, retransmission_causes: str | None
) -> str:
    """Return how often and why segments were sent again, and how long that took."""
    if not retransmissions:
        return ""
    waited = retransmission_wait_ns and duration(retransmission_wait_ns / 1000)
    count = f"{retransmissions} segments" if retransmissions > 1 else "a segment"
    return f"; {count} sent again ({retransmission_causes})" + (f": {waited}" if waited else "")
