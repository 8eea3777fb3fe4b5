"""The options that say how to trace, shared by the commands that need a kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from tcprism.cli.options import (
    parse_bytes,
    parse_payload,
    quiet_option,
    verbose_option,
    with_options,
)
from tcprism.errors import UsageError
from tcprism.events._wire import PAYLOAD_MAX
from tcprism.probes import MECHANISMS
from tcprism.ring import rings
from tcprism.sources.request import DEFAULT_MAX_CONNECTIONS, payload_of_segments
from tcprism.stages.redact import compiled

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def payload_option(default: int, of: str = "message") -> Callable[[Decorated], Decorated]:
    """Return the option that says how much payload to take, of what."""
    return click.option(
        "--payload",
        type=int,
        default=default,
        show_default=True,
        metavar="BYTES",
        help=f"Payload bytes to capture per {of}, 0 to {PAYLOAD_MAX}.",
    )


OR_SEGMENT = "message, or if given per segment where messages are not traced"


def payloads(given: dict[str, Any], kinds: Sequence[str]) -> dict[str, int]:
    """Return the bytes of messages and of segments that --payload asks for. Raises UsageError."""
    payload = parse_payload(given.pop("payload"))
    source = click.get_current_context().get_parameter_source("payload")
    asked = None if source is ParameterSource.DEFAULT else payload
    return {"payload": payload, "segment_payload": payload_of_segments(kinds, asked)}


header_option = click.option(
    "--options",
    is_flag=True,
    help="Also record the options in the TCP header of each segment.",
)

_REDACT = "Overwrite credentials, cookies and card numbers in payload."
_REDACT_OPTION = click.option("--redact", is_flag=True, help=_REDACT)

_TRACING_OPTIONS = (
    click.option(
        "--ring-size",
        default="64M",
        show_default=True,
        metavar="BYTES",
        help="Memory per busy ring, 64K to 1G; larger rings survive longer bursts.",
    ),
    click.option(
        "--max-connections",
        type=click.IntRange(1, 1 << 24),
        default=DEFAULT_MAX_CONNECTIONS,
        show_default=True,
        metavar="N",
        help="Sockets to remember owners for, where the kernel cannot store them with the socket.",
    ),
    click.option(
        "--hooks",
        type=click.Choice(MECHANISMS),
        help="Use only this hook type (for troubleshooting).",
    ),
    _REDACT_OPTION,
    click.option(
        "--redact-also",
        multiple=True,
        metavar="REGEX",
        help="Also overwrite what a regular expression matches, or its first group.",
    ),
    click.option("--include-self", is_flag=True, help="Also trace tcprism's own connections."),
    verbose_option,
    quiet_option,
)


def tracing_options(command: Decorated) -> Decorated:
    """Add the options that say how to trace."""
    return with_options(_TRACING_OPTIONS, command)


def serving_options(command: Decorated) -> Decorated:
    """Add the same where nobody watches, so that secrets are overwritten unless told otherwise."""
    redact = click.option("--redact/--no-redact", default=True, show_default=True, help=_REDACT)
    rest = [option for option in _TRACING_OPTIONS if option is not _REDACT_OPTION]
    return with_options((redact, *rest), command)


def parse_tracing(given: dict[str, Any]) -> dict[str, Any]:
    """Take the values of the options that say how to trace, except --verbose, out of `given`."""
    redact, also = given.pop("redact"), given.pop("redact_also")
    for text in also:  # also where there is no payload to overwrite
        compiled(text)
    return {
        "redact": also if redact or also else None,
        "ring_size": parse_ring_size(given.pop("ring_size")),
        "mechanism": given.pop("hooks"),
        "include_self": given.pop("include_self"),
        "max_connections": given.pop("max_connections"),
    }


def parse_ring_size(text: str) -> int:
    """Parse "64M", "65536". Raises UsageError."""
    size = parse_bytes(text)
    if not rings.SMALLEST <= size <= rings.LARGEST:
        raise UsageError(
            f"--ring-size: {text!r} is not a size from 64K to 1G;"
            " write for example --ring-size 128M"
        )
    return size
