"""Where output goes, and in which format."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from tcprism.errors import UsageError
from tcprism.events.kinds import SEGMENT_KINDS, TLS_KINDS
from tcprism.events.ledger import Ledger
from tcprism.interrupts import cleaning
from tcprism.private_file import PrivateFile
from tcprism.sinks import Sink
from tcprism.sinks.formats import BINARY, sink_for
from tcprism.stages import Stage

_MESSAGES = ("send", "recv")
_PACKETS = {"segments": SEGMENT_KINDS, "messages": _MESSAGES, "plaintext": TLS_KINDS}


class Output(Protocol):
    """What a sink writes to, as far as a session deals with it."""

    def flush(self) -> None:
        """Hand over what is buffered."""

    def fileno(self) -> int:
        """Return the descriptor, to notice that the reader went away."""


@contextmanager
def opened(path: Path | None) -> Iterator[BinaryIO]:
    """Open the output; a file is made readable to its owner alone, for it holds payload.

    Raises OutputError.
    """
    if path is None:
        # Not sys.stdout.buffer: with PYTHONUNBUFFERED that writes what fits and forgets the rest.
        with open(sys.stdout.fileno(), "wb", closefd=False) as output:
            yield output
        return
    file = _private(path)
    try:
        with cleaning(file.discard), io.BufferedWriter(file) as output:
            yield output
            file.begin()  # it went well, so the file is this run's even if nothing happened
    finally:
        file.discard()


def create(path: Path) -> BinaryIO:
    """Create a file that its owner alone may read, or replace one. Raises OutputError."""
    return io.BufferedWriter(_private(path))


def encrypting(keys: Sequence[str]) -> Callable[[Path], BinaryIO]:
    """Return what creates a file, encrypted if there are keys. Raises UsageError, ExtraMissing."""
    if not keys:
        return create
    from tcprism.recording.encryption import Encrypted, recipients

    to = recipients(keys)
    return lambda path: cast(BinaryIO, Encrypted(create(path), to))


def _private(path: Path) -> PrivateFile:
    file = PrivateFile(path)
    if file.doubt:
        print(f"tcprism: {file.doubt}", file=sys.stderr)
    return file


def make_sink(given: dict[str, Any], kinds: Sequence[str], output: BinaryIO) -> Sink:
    """Return the sink that the options choose for events of some kinds."""
    form: str = given["form"]
    if form != "text":
        if given["count_only"]:
            raise UsageError(f"--count-only prints a table: leave --format {form} out")
        return format_sink(form, given["packets"], kinds, output)
    _check_packets(given["packets"], form, kinds)
    if given["count_only"]:
        from tcprism.sinks.count import Count

        return Count(output)
    from tcprism.sinks.text import Text

    return Text(output, color=wants_color(given["color"], output), style=given["payload_style"])


def format_sink(form: str, packets: str | None, kinds: Sequence[str], output: BinaryIO) -> Sink:
    """Return the sink of a format; `packets` says what pcapng is made of, None: what there is.

    Raises UsageError and ExtraMissing.
    """
    _check_packets(packets, form, kinds)
    if form in BINARY and output.isatty():
        raise UsageError(f"{form} is not for a terminal: write it to a file with --output FILE")
    make: Callable[..., Sink] = sink_for(form)
    if form == "pcapng":
        make = partial(make, source=packets_of(packets, kinds))
    return make(output)


def _check_packets(packets: str | None, form: str, kinds: Sequence[str]) -> None:
    if form != "pcapng":
        if packets:
            raise UsageError("--packets chooses what pcapng has: it needs the format pcapng")
        return
    source = packets_of(packets, kinds)
    if {*_PACKETS[source]} & {*kinds}:
        return
    if source == "plaintext":
        raise UsageError("--packets plaintext needs trace or record with --tls, which reads it")
    kinds = _PACKETS[source]
    raise UsageError(
        f"pcapng of {source} needs one of the kinds {', '.join(kinds)},"
        f" as `tcprism trace --kinds {kinds[0]}` has"
    )


def packets_of(packets: str | None, kinds: Sequence[str]) -> str:
    """Return what pcapng is made of: as chosen, or messages where no segments carry them."""
    if packets:
        return packets
    only_messages = {*_MESSAGES} & {*kinds} and not {"transmit", "receive"} & {*kinds}
    return "messages" if only_messages else "segments"


def naming(form: str) -> tuple[Stage, ...]:
    """Return the stages that a format needs: pcapng has the names of requests in its comments."""
    if form != "pcapng":
        return ()
    from tcprism.stages.request_names import RequestNames

    return (RequestNames(),)


def wants_color(choice: str, output: BinaryIO) -> bool:
    """Follow --color, then NO_COLOR, then whether the output is a terminal."""
    if choice != "auto":
        return choice == "always"
    return not os.environ.get("NO_COLOR") and output.isatty()


def silence(output: Output) -> None:
    """Make sure that nothing is written to a pipe without a reader, at exit neither."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, output.fileno())
    os.close(null)


def print_ledger(ledger: Ledger, given: dict[str, Any]) -> None:
    """Print the account of every event on stderr, as --verbose and --quiet say."""
    if not given["quiet"]:
        lines = ledger.whole() if given["verbose"] else ledger.lines()
        print("\n".join(lines), file=sys.stderr)
