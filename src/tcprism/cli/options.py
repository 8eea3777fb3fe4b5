"""The options that choose what is traced, and what they become."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from tcprism import filters
from tcprism.errors import UsageError
from tcprism.events import KINDS
from tcprism.events._wire import PAYLOAD_MAX
from tcprism.pipeline import DEFAULT_PAYLOAD
from tcprism.ring import rings

Command = TypeVar("Command", bound=Callable[..., Any])
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}

_FILTER_OPTIONS = (
    click.option("--pid", "--pids", "pid", multiple=True, metavar="PID,...", help="Processes."),
    click.option("--follow", is_flag=True, help="Also the children of --pid, made later too."),
    click.option("--comm", multiple=True, metavar="NAME", help="Thread names (15 bytes count)."),
    click.option("--host", multiple=True, metavar="ADDR[/PREFIX]", help="Either end."),
    click.option("--remote-host", multiple=True, metavar="ADDR[/PREFIX]", help="The remote end."),
    click.option("--port", multiple=True, metavar="N[-M]", help="Either end."),
    click.option("--local-port", multiple=True, metavar="N[-M]", help="The local end."),
    click.option("--remote-port", multiple=True, metavar="N[-M]", help="The remote end."),
    click.option("--cgroup", multiple=True, metavar="PATH", help="Processes below a cgroup v2."),
    click.option("--container", multiple=True, metavar="ID|NAME", help="Processes in a container."),
    click.option("--netns", multiple=True, metavar="PATH|PID", help="Network namespaces."),
    click.option("--family", type=click.Choice(["4", "6"]), help="Only IPv4 or only IPv6."),
)


payload_option = click.option(
    "--payload",
    type=int,
    default=DEFAULT_PAYLOAD,
    show_default=True,
    metavar="BYTES",
    help=f"Payload to show of each message, 0 to {PAYLOAD_MAX}.",
)


format_option = click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    help="Lines to read, or one JSON object a line.",
)
output_option = click.option(
    "--output", metavar="FILE", help="Write events here instead of to standard output."
)
count_option = click.option(
    "--count", type=click.IntRange(1), metavar="N", help="Stop after N events."
)
duration_option = click.option("--duration", type=float, metavar="SECONDS", help="Stop then.")
color_option = click.option(
    "--color",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    help="Auto: on a terminal, unless NO_COLOR is set.",
)
verbose_option = click.option(
    "-v", "--verbose", count=True, help="Tell the hooks in use; -vv: libbpf's log."
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
        help=f"{', '.join(KINDS)}, or all.",
    )


def filter_options(command: Command) -> Command:
    """Add the filter options to a command."""
    return with_options(_FILTER_OPTIONS, command)


def with_options(added: Sequence[Callable[[Command], Command]], command: Command) -> Command:
    """Add options to a command, in their order."""
    for option in reversed(added):
        command = option(command)
    return command


def to_filter(given: dict[str, Any], command_pid: int | None = None) -> filters.Filter:
    """Make a Filter of the filter options' values, taking them out of `given`.

    With `command_pid`, that process and its children are what is traced. Raises UsageError.
    """
    pids = _flatten(filters.parse_pids(text) for text in given.pop("pid"))
    follow = given.pop("follow")
    if command_pid is not None:
        pids, follow = (*pids, command_pid), True
    return filters.Filter(
        pids=pids,
        follow=follow,
        comms=tuple(map(filters.parse_comm, given.pop("comm"))),
        hosts=tuple(map(filters.parse_network, given.pop("host"))),
        remote_hosts=tuple(
            filters.parse_network(text, "--remote-host") for text in given.pop("remote_host")
        ),
        ports=_flatten(map(filters.parse_ports, given.pop("port"))),
        local_ports=_flatten(
            filters.parse_ports(text, "--local-port") for text in given.pop("local_port")
        ),
        remote_ports=_flatten(
            filters.parse_ports(text, "--remote-port") for text in given.pop("remote_port")
        ),
        cgroups=(
            *map(filters.parse_cgroup, given.pop("cgroup")),
            *_flatten(map(find_container, given.pop("container"))),
        ),
        netns=tuple(map(filters.parse_netns, given.pop("netns"))),
        family=int(given.pop("family") or 0),
    )


def find_container(text: str) -> tuple[Path, ...]:
    """Return the cgroups of a container. Raises UnknownTarget."""
    from tcprism.containers import Names, find_cgroups

    return find_cgroups(text, filters.cgroup_roots(), Names())


Value = TypeVar("Value")


def _flatten(groups: Iterable[tuple[Value, ...]]) -> tuple[Value, ...]:
    return tuple(value for group in groups for value in group)


def parse_kinds(text: str) -> tuple[str, ...]:
    """Parse "send,retransmit" or "all". Raises UsageError."""
    if text == "all":
        return KINDS
    chosen = {part.strip() for part in text.split(",")}
    if unknown := sorted(chosen - set(KINDS)):
        raise UsageError(
            f"--kinds: {unknown[0]!r} is not a kind; choose from {', '.join(KINDS)}, or all"
        )
    return tuple(kind for kind in KINDS if kind in chosen)


def parse_payload(value: int) -> int:
    """Check a number of payload bytes. Raises UsageError."""
    if not 0 <= value <= PAYLOAD_MAX:
        raise UsageError(f"--payload: {value} is not between 0 and {PAYLOAD_MAX} bytes")
    return value


def parse_duration(value: float | None) -> float | None:
    """Check a number of seconds. Raises UsageError."""
    if value is not None and not 0 < value < math.inf:
        raise UsageError(f"--duration: {value} is not a number of seconds above 0")
    return value


def parse_ring_size(text: str) -> int:
    """Parse "64M", "65536"; the kernel takes powers of two. Raises UsageError."""
    match = re.fullmatch(r"([0-9]{1,12})([KMG]?)i?B?", text.strip(), re.ASCII | re.IGNORECASE)
    size = int(match[1]) * _UNITS[match[2].upper()] if match else 0
    if not rings.SMALLEST <= size <= rings.LARGEST or size & (size - 1):
        raise UsageError(
            f"--ring-size: {text!r} is not a power of two from 64K to 1G;"
            " write for example --ring-size 128M"
        )
    return size


def parse_output(text: str | None) -> Path | None:
    """Return the file to write to, or None for standard output."""
    return None if text in (None, "-") else Path(str(text))
