"""The options that ask for the plaintext of TLS, and what follows from them."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NoReturn, TypeVar

import click

from tcprism.cli.options import with_options
from tcprism.errors import UsageError
from tcprism.events.escape import escape_text
from tcprism.events.kinds import KINDS, TLS_KINDS
from tcprism.stages import Stage
from tcprism.stages.encrypted import WithoutEncrypted

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

_CARRIERS = ("send", "recv")

_OPTIONS = (
    click.option("--tls", is_flag=True, help="Also read the plaintext of TLS (docs/tls.md)."),
    click.option(
        "--layers",
        type=click.Choice(["plaintext", "all"]),
        default="plaintext",
        show_default=True,
        help="With --tls, whether to show the encrypted messages beside their plaintext.",
    ),
)


def tls_option(command: Decorated) -> Decorated:
    """Add --tls, without a choice of what is shown."""
    return with_options(_OPTIONS[:1], command)


def tls_options(command: Decorated) -> Decorated:
    """Add --tls and --layers."""
    return with_options(_OPTIONS, command)


def with_tls(given: dict[str, Any], kinds: Sequence[str]) -> tuple[str, ...]:
    """Return the kinds to trace, with those of TLS if the options say so.

    Raises UsageError where others could read what is written of them.
    """
    wanted = kinds_with_tls(given, kinds)
    if {*wanted} & {*TLS_KINDS}:
        refuse_readers(given)
    return wanted


def kinds_with_tls(given: dict[str, Any], kinds: Sequence[str]) -> tuple[str, ...]:
    """Return what with_tls() does, for a command that writes no plaintext to its output."""
    wanted = {*kinds}
    if given.pop("tls"):
        wanted |= {*TLS_KINDS, *_CARRIERS}
    return tuple(kind for kind in KINDS if kind in wanted)


def refuse_recordings() -> NoReturn:
    """Raise UsageError: no library can be read of what has been recorded."""
    raise UsageError(
        "--tls is for this machine; a recording has the plaintext of TLS if"
        " `tcprism record --tls` made it"
    )


def without_encrypted(given: dict[str, Any], kinds: Sequence[str]) -> tuple[Stage, ...]:
    """Return the stage that leaves out what is shown as plaintext, unless all is to be shown."""
    if given["layers"] == "all" or not set(kinds) & set(TLS_KINDS):
        return ()
    return (WithoutEncrypted(),)


def refuse_readers(given: dict[str, Any]) -> None:
    """Raise UsageError if others may read the output: a file that is not ours, or stdout."""
    output = given.get("output")
    if output not in (None, "-"):
        with suppress(OSError):
            if (owner := os.stat(output).st_uid) != os.geteuid():
                raise UsageError(
                    f"--tls: {escape_text(output)} belongs to user {owner}, and plaintext has"
                    " passwords: write to a new file"
                )
        return
    found = os.fstat(sys.stdout.fileno())
    if stat.S_ISREG(found.st_mode) and found.st_mode & 0o077:
        raise UsageError(
            "--tls: standard output is a file that others may read, and plaintext has passwords:"
            f" {'use --output FILE' if 'output' in given else 'use a file'}, which only its owner"
            " can read"
        )
