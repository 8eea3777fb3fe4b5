"""The options that choose what to trace, and their parsing."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from tcprism.errors import UsageError
from tcprism.events import KINDS
from tcprism.events._wire import PAYLOAD_MAX
from tcprism.events.kinds import NAMED_KINDS
from tcprism.filter_texts import OPTIONS, parse
from tcprism.filters import Criteria
from tcprism.stages import Stage, stage_for

Command = TypeVar("Command", bound=Callable[..., Any])
LEAST_MEMORY = 64 << 20
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}

_FILTER_OPTIONS = (
    click.option(
        "--pid",
        "--pids",
        "pid",
        multiple=True,
        metavar="PID,...",
        help="Processes with these PIDs.",
    ),
    click.option("--follow", is_flag=True, help="Include children of --pid, existing and future."),
    click.option(
        "--comm", multiple=True, metavar="NAME", help="Threads with this name (first 15 bytes)."
    ),
    click.option("--host", multiple=True, metavar="ADDR[/PREFIX]", help="Local or remote address."),
    click.option("--remote-host", multiple=True, metavar="ADDR[/PREFIX]", help="Remote address."),
    click.option("--port", multiple=True, metavar="N[-M]", help="Local or remote port."),
    click.option("--local-port", multiple=True, metavar="N[-M]", help="Local port."),
    click.option("--remote-port", multiple=True, metavar="N[-M]", help="Remote port."),
    click.option(
        "--cgroup", multiple=True, metavar="PATH", help="Processes in this cgroup v2 or below it."
    ),
    click.option(
        "--container", multiple=True, metavar="ID|NAME", help="Processes in this container."
    ),
    click.option(
        "--netns", multiple=True, metavar="PATH|PID", help="Sockets in this network namespace."
    ),
    click.option("--family", type=click.Choice(["4", "6"]), help="IPv4 only or IPv6 only."),
)


format_option = click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    help="Readable lines, or one JSON object per line.",
)
output_option = click.option(
    "--output", "-o", metavar="FILE", help="Write events to FILE instead of standard output."
)
count_option = click.option(
    "--count", type=click.IntRange(1), metavar="N", help="Stop after N events."
)
duration_option = click.option(
    "--duration", type=float, metavar="SECONDS", help="Stop after SECONDS."
)
color_option = click.option(
    "--color",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    help="auto: on a terminal, unless NO_COLOR is set.",
)
verbose_option = click.option(
    "-v",
    "--verbose",
    count=True,
    help="Show the hooks in use and the full ledger; -vv: libbpf's log too.",
)
quiet_option = click.option(
    "-q", "--quiet", is_flag=True, help="Print only errors on standard error."
)
command_argument = click.argument(
    "command", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND ARGS...]"
)


def kinds_option(default: str) -> Callable[[Command], Command]:
    """Return the option that chooses kinds of events."""
    return click.option(
        "--kinds",
        default=default,
        show_default=True,
        metavar="KIND,...",
        help=f"Event kinds: {', '.join(KINDS)}, or all, which leaves {', '.join(NAMED_KINDS)} out"
        " unless named, as in all,receive.",
    )


def _use_identity(_: click.Context, __: click.Parameter, path: str | None) -> None:
    if path is not None:
        from tcprism.recording.encryption import use_identity

        use_identity(path)


_identity_option = click.option(
    "--identity",
    metavar="FILE",
    expose_value=False,
    callback=_use_identity,
    help="The key to an encrypted recording, as age-keygen writes it.",
)
encrypt_option = click.option(
    "--encrypt-to",
    multiple=True,
    metavar="KEY",
    help="Encrypt the recording to this public key of age's or SSH's; may be given again.",
)
_memory_option = click.option(
    "--max-memory",
    default="1G",
    show_default=True,
    metavar="SIZE",
    help="Memory for reading a recording; one that needs more is refused.",
)


def memory_option(command: Command) -> Command:
    """Add the options of all commands that read recordings."""
    return _memory_option(_identity_option(command))


_SELECTION_OPTIONS = (
    *_FILTER_OPTIONS,
    click.option(
        "--kinds", metavar="KIND,...", help="Event kinds; by default all that were recorded."
    ),
    click.option("--payload", type=int, metavar="BYTES", help="Payload bytes to keep per message."),
    memory_option,
)

packets_option = click.option(
    "--packets",
    type=click.Choice(["segments", "messages", "plaintext"]),
    help="Packets in pcapng: the segments (if traced), or a stream made from messages, or"
    " from the plaintext of TLS.",
)

stage_option = click.option(
    "--stage", multiple=True, metavar="NAME", help="Pass events through an installed stage."
)

_VIEW_OPTIONS = (
    click.option(
        "--payload-style",
        type=click.Choice(["text", "hex", "none"]),
        default="text",
        help="How to show payload below its event.",
    ),
    click.option(
        "--format",
        "form",
        default="text",
        show_default=True,
        metavar="FORMAT",
        help="text, json, csv, arrow, parquet, pcapng, or an installed format.",
    ),
    packets_option,
    stage_option,
    output_option,
    click.option("--count-only", is_flag=True, help="Print rates and totals, not events."),
    color_option,
)


def selection_options(command: Command) -> Command:
    """Add the options that choose events of a recording."""
    return with_options(_SELECTION_OPTIONS, command)


def view_options(command: Command) -> Command:
    """Add the options that say where events go and how they look."""
    return with_options(_VIEW_OPTIONS, command)


def filter_options(command: Command) -> Command:
    """Add the filter options to a command."""
    return with_options(_FILTER_OPTIONS, command)


def with_options(added: Sequence[Callable[[Command], Command]], command: Command) -> Command:
    """Add options to a command, in their order."""
    for option in reversed(added):
        command = option(command)
    return command


def filter_texts(given: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """Take the values of the filter options, except --follow, out of `given`."""
    values = {name: given.pop(name) for name in OPTIONS}
    values["family"] = (values["family"],) if values["family"] else ()
    return {name: value for name, value in values.items() if value}


def to_filter(given: dict[str, Any], command_pid: int | None = None) -> Criteria:
    """Make a Filter of the filter options' values, taking them out of `given`.

    With `command_pid`, that process and its children are what is traced. Raises UsageError.
    """
    pids = () if command_pid is None else (command_pid,)
    follow = given.pop("follow")
    return parse(filter_texts(given), pids, follow or bool(pids))


def parse_kinds(text: str, known: Sequence[str] = KINDS) -> tuple[str, ...]:
    """Parse "send,retransmit", "all" or "all,receive" of kinds that are known. Raises UsageError.

    Plaintext must be asked for by name where it is not recorded already.
    """
    chosen = {part.strip() for part in text.split(",")}
    if "all" in chosen:
        left_out = NAMED_KINDS if known is KINDS else ()
        chosen = chosen - {"all"} | {kind for kind in known if kind not in left_out}
    if unknown := sorted(chosen - set(known)):
        raise UsageError(
            f"--kinds: {unknown[0]!r} is not a kind; choose from {', '.join(known)}, or all"
        )
    return tuple(kind for kind in known if kind in chosen)


def parse_payload(value: int) -> int:
    """Check a number of payload bytes. Raises UsageError."""
    if not 0 <= value <= PAYLOAD_MAX:
        raise UsageError(f"--payload: {value} is not between 0 and {PAYLOAD_MAX} bytes")
    return value


def parse_duration(value: float | None) -> float | None:
    """Check a number of seconds. Raises UsageError."""
    if value is not None and not 0 < value < math.inf:
        raise UsageError(
            f"--duration: {value:g} is not a number of seconds above 0;"
            " write for example --duration 10"
        )
    return value


def parse_size(text: str | None, name: str) -> int | None:
    """Parse "100M"; `name` is the option's. Raises UsageError."""
    if text is None:
        return None
    if not (size := parse_bytes(text)):
        option = f"--{name.replace('_', '-')}"
        raise UsageError(f"{option}: {text!r} is not a size; write for example {option} 100M")
    return size


def parse_memory(text: str, option: str = "--max-memory") -> int:
    """Parse --max-memory, or another option like it. Raises UsageError."""
    size = parse_size(text, option.removeprefix("--")) or 0
    if size < LEAST_MEMORY:
        raise UsageError(f"{option}: {text!r} is too little to read anything: give 64M or more")
    return size


def parse_address(text: str, option: str, example: str) -> tuple[str, int]:
    """Parse "127.0.0.1:8000" or "[::1]:8000". Raises UsageError."""
    host, _, port = text.rpartition(":")
    if not host or not (port.isascii() and port.isdecimal()) or not int(port[:6]) < 65536:
        raise UsageError(
            f"{option}: {text!r} is not an address and a port; write for example {option} {example}"
        )
    return host.removeprefix("[").removesuffix("]"), int(port)


def parse_bytes(text: str) -> int:
    """Return a size in bytes, 0 for a text that is none."""
    match = re.fullmatch(r"([0-9]{1,12})([KMG]?)i?B?", text.strip(), re.ASCII | re.IGNORECASE)
    return int(match[1]) * _UNITS[match[2].upper()] if match else 0


def parse_output(text: str | None) -> Path | None:
    """Return the file to write to, or None for standard output."""
    return None if text in (None, "-") else Path(str(text))


def parse_stages(given: dict[str, Any]) -> tuple[Stage, ...]:
    """Return the stages that the user named; they may make kinds known, so this comes first."""
    return tuple(map(stage_for, given.pop("stage")))
