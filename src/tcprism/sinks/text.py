"""Text for people: one aligned line per event, the payload below it."""

from functools import partial
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from tcprism.events import Part
from tcprism.events.columns import BY_NAME as COLUMN
from tcprism.events.columns import MESSAGES
from tcprism.events.escape import escape_payloads_in_lines
from tcprism.events.kinds import BY_NAME, Kind, kind_name, numbers_of
from tcprism.events.names import endpoint, process
from tcprism.events.scopes import shown
from tcprism.sinks.lines import (
    IdentityCache,
    LineBuilder,
    LineSink,
    TimeOfDay,
)
from tcprism.sinks.text_details import details

PayloadStyle = Literal["text", "hex", "none"]

DIM = "\x1b[2m"
RESET = "\x1b[0m"

PAYLOAD_INDENT = "    "
NOTE_INDENT = "  "  # less than the payload's, which cannot fake a note
HEX_BYTES = 16
HEX_CHARACTERS = bytes(byte if 0x20 <= byte < 0x7F else ord(".") for byte in range(256))


class Text(LineSink):
    """Writes each event as a line of text, and its payload below, to a binary file.

    `style` shows payload as text, as a hexadecimal dump or not at all.
    """

    def __init__(self, file: BinaryIO, *, color: bool, style: PayloadStyle = "text") -> None:
        super().__init__(file)
        self._color = color
        self._style = style
        self._time = TimeOfDay()
        self._identities = IdentityCache(self._identity_texts)
        self._incoming = IdentityCache(partial(self._identity_texts, incoming=True))

    def lines(self, part: Part, clock_offset_ns: int) -> list[str]:
        """Return the lines of a part's events."""

        def clock(moments: NDArray[np.uint64]) -> list[str]:
            return self._time.begin(moments, clock_offset_ns).lines()

        line = self._time.begin(part.rows["ts_ns"], clock_offset_ns)
        line.text(" ")
        line.texts(self._identified(part))
        line.texts(details(part, clock))
        self._end_line(line, part)
        if part.family in MESSAGES or part.payload is not None:
            self._add_payload(line, part)
        return line.lines()

    def _end_line(self, line: LineBuilder, part: Part) -> None:
        loud = [number for number in numbers_of(part.family) if _kind(kind_name(number)).loud]
        if self._color and loud:
            line.texts([RESET if number in loud else "" for number in part.rows["kind"].tolist()])
        line.text("\n")

    def _identified(self, part: Part) -> list[str]:
        """Return the start of each line; what it is about does not tell which way a drop went."""
        texts = self._identities.texts(part)
        if "outgoing" in (part.rows.dtype.names or ()):
            outgoing = COLUMN["outgoing"]
            came = np.flatnonzero(~outgoing.mask(part) & (outgoing.values(part) == 0))
            for index, text in zip(came, self._incoming.texts(part.take(came)), strict=True):
                texts[index] = text
        return texts

    def _identity_texts(self, part: Part, incoming: bool = False) -> list[str]:
        names = ("kind", "comm", "pid", "local_ip", "local_port", "remote_ip", "remote_port")
        columns = [shown(part, name) for name in names]
        return list(map(partial(self._identity_text, incoming), *columns))

    def _identity_text(
        self,
        incoming: bool,
        kind: str,
        comm: str | None,
        pid: int | None,
        local_ip: str,
        local_port: int,
        remote_ip: str,
        remote_port: int,
    ) -> str:
        who = process(comm, pid)
        known = _kind(kind)
        arrow = "<-" if incoming or known.incoming else "->"
        local, remote = endpoint(local_ip, local_port), endpoint(remote_ip, remote_port)
        start = color_of(kind) if self._color else ""
        end = RESET if start and not known.loud else ""
        return f"{start}{kind:<10}{end} {who:<20} {local:>21} {arrow} {remote:<21} "

    def _add_payload(self, line: LineBuilder, part: Part) -> None:
        if self._style == "none":
            return
        if self._style == "hex":
            line.texts(list(map(hex_dump, part.payloads())))
        else:
            texts = escape_payloads_in_lines(part, PAYLOAD_INDENT)
            line.texts([f"{PAYLOAD_INDENT}{text}\n" if text else "" for text in texts])
        line.texts(self._notes(part))

    def _notes(self, part: Part) -> list[str]:
        """Return what is to be said of a payload that is cut or missing."""
        reasons = COLUMN["payload_unavailable"].to_list(part)
        notes = [f"no payload: {reason}" if reason else "" for reason in reasons]
        lengths = part.payload_lengths()
        for index in np.flatnonzero(COLUMN["payload_truncated"].values(part)).tolist():
            note = f"... {lengths[index]} of {part.rows['bytes'][index]} bytes"
            notes[index] = f"{note}: {reasons[index]}" if reasons[index] else note
        start, end = (DIM, RESET) if self._color else ("", "")
        return [f"{NOTE_INDENT}{start}{note}{end}\n" if note else "" for note in notes]


def color_of(kind: str) -> str:
    """Return what begins a kind's colour (ECMA-48, "select graphic rendition")."""
    color = _kind(kind).color
    return f"\x1b[{color}m" if color else ""


def _kind(name: str) -> Kind:
    return BY_NAME.get(name) or Kind(name, doc="of a later tcprism")


def hex_dump(data: bytes, width: int = HEX_BYTES) -> str:
    """Return lines of offset, `width` bytes in hexadecimal, and the same bytes as ASCII."""
    lines = []
    for offset in range(0, len(data), width):
        piece = data[offset : offset + width]
        characters = piece.translate(HEX_CHARACTERS).decode("ascii")
        hexadecimal = f"{piece[:8].hex(' ')}  {piece[8:].hex(' ')}".ljust(3 * width + 1)
        lines.append(f"{PAYLOAD_INDENT}{offset:04x}  {hexadecimal} |{characters}|\n")
    return "".join(lines)
