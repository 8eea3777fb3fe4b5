"""One line per connection, below a header: owner, duration, traffic, and how it ended."""

from __future__ import annotations

from typing import BinaryIO

from tcprism.events import Part
from tcprism.events.columns import BY_NAME
from tcprism.events.names import endpoint, process
from tcprism.events.units import duration, size
from tcprism.events.wording import counted, how_it_ended, why_not_established
from tcprism.sinks.lines import LineSink, TimeOfDay
from tcprism.sinks.text import RESET, color_of
from tcprism.sinks.text_details import each

_ENDS = "{:<20} {:<21} {:<21}"
_LIFE = "{:>8} {:>8} {:>8} {:>11} {:>7} {:>8}"
HEADER = (
    f"{'time':<15} {_ENDS.format('process', 'local', 'remote')} "
    + _LIFE.format("duration", "sent", "received", "segs", "retrans", "rtt")
    + " ended\n"
)
WELL = ("fin", "open")


class Connections(LineSink):
    """Writes a line for each event of the connection family to a binary file.

    A `close` is a connection that ended and a `connect` one that failed; any other is open. With
    `color`, those that did not end well stand out.
    """

    header = HEADER

    def __init__(self, file: BinaryIO, *, color: bool) -> None:
        super().__init__(file)
        self._color = color
        self._time = TimeOfDay()

    def lines(self, part: Part, clock_offset_ns: int) -> list[str]:
        """Return the lines of a part's events."""
        line = self._time.begin(part.rows["ts_ns"], clock_offset_ns)
        line.text(" ")
        line.texts(each(_ends, part))
        line.text(" ")
        is_open = part.family == "snapshot"
        ages = BY_NAME["age_ns" if is_open else "elapsed_ns"].to_list(part)
        line.texts(each(_life, part, ages))
        line.text(" ")
        line.texts(map(self._colored, each(_open if is_open else _ended, part)))
        line.text("\n")
        return line.lines()

    def _colored(self, ended: str) -> str:
        return (
            ended
            if ended.startswith(WELL) or not self._color
            else f"{color_of('reset')}{ended}{RESET}"
        )


def _ends(
    comm: str | None,
    pid: int | None,
    local_ip: str,
    local_port: int,
    remote_ip: str,
    remote_port: int,
) -> str:
    local, remote = endpoint(local_ip, local_port), endpoint(remote_ip, remote_port)
    return _ENDS.format(process(comm, pid), local, remote)


def _life(
    elapsed_ns: int | None,
    bytes_sent: int,
    bytes_retrans: int,
    bytes_received: int,
    segs_out: int,
    segs_in: int,
    total_retrans: int,
    srtt_us: int | None,
) -> str:
    return _LIFE.format(
        "-" if elapsed_ns is None else duration(elapsed_ns / 1000),
        size(bytes_sent - bytes_retrans),
        size(bytes_received),
        f"{segs_out}/{segs_in}",
        total_retrans,
        "-" if srtt_us is None else duration(srtt_us),
    )


def _ended(
    kind: str,
    new_state: str | None,
    ending: str | None,
    error: str | None,
    total_retrans: int,
) -> str:
    if kind == "close":
        return how_it_ended(ending, error)
    if kind == "connect" and new_state != "ESTABLISHED":
        return f"{why_not_established(error)}, {counted(1 + total_retrans, 'SYN')}"
    return "open"


def _open(state: str, holders: str | None) -> str:
    return f"open, {state}: {holders}" if holders else f"open, {state}"
