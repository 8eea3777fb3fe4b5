"""The commands. Each is imported only when used, so that --help stays quick."""

from __future__ import annotations

import errno
import gc
import os
import sys
from importlib import import_module
from signal import SIGINT
from typing import Any, NoReturn

import click

from tcprism import __version__
from tcprism.errors import Error
from tcprism.interrupts import Interrupted, asked

COMMANDS = {
    "trace": "Show what is sent, received and lost, and how connections begin and end.",
    "connections": "Show one line per connection as it ends.",
    "retransmits": "Show what is retransmitted, why, and whose bytes.",
    "requests": "Show each request, its time, and what TCP did to it.",
    "top": "Show all current connections and what limits each.",
    "web": "Show this machine in a browser, live.",
    "explain": "Explain what limits connections, with the numbers that prove it.",
    "serve": "Run always: metrics for Prometheus and OTLP, a bounded recording, ClickHouse.",
    "fleet": "Make the tables for many hosts in ClickHouse, or bring older ones up to date.",
    "record": "Record events to a file, to read later or on another machine.",
    "replay": "Show a recording as trace would have shown it.",
    "view": "Show a recording in a browser.",
    "report": "Write a recording as one page that needs no server.",
    "export": "Convert a recording to a format that other tools read.",
    "query": "Query a recording with SQL.",
    "doctor": "Report what this machine can show, by which hook, and why not by a better one.",
    "demo": "Create a small lossy network and trace it.",
}

# What writing a file may end with, and little else.
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class LazyGroup(click.Group):
    """A group whose commands live in modules of their own."""

    def list_commands(self, _context: click.Context) -> list[str]:
        """Return the commands in the order in which a newcomer needs them."""
        return list(COMMANDS)

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        """Import a command."""
        if name not in COMMANDS:
            return None
        return _import_command(name)

    def invoke(self, context: click.Context) -> Any:
        """Run a command; a reader of its output that goes away is no error."""
        try:
            try:
                return super().invoke(context)
            finally:
                sys.stdout.flush()
        except BrokenPipeError:
            from tcprism.cli.output import silence

            silence(sys.stdout)
            sys.exit(0)

    def format_commands(self, _context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _import_command(name: str) -> click.Command:
    """Import a command without the threads of OpenBLAS, and without collecting garbage.

    NumPy's OpenBLAS starts one a CPU, which takes as long as the rest of NumPy; nothing here uses
    them. What is left in the environment would reach the commands that are traced. A tenth of the
    time of imports goes into looking for garbage, and there is next to none.
    """
    gc.disable()
    unlimited = "OPENBLAS_NUM_THREADS" not in os.environ
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        command: click.Command = import_module(f"tcprism.cli.{name}").command
    finally:
        if unlimited:
            del os.environ["OPENBLAS_NUM_THREADS"]
        gc.freeze()  # what is imported stays
        gc.enable()
    return command


EPILOG = """\b
Examples:
  sudo tcprism trace --port 443            everything on HTTPS connections
  sudo tcprism trace -- curl http://host/  one command and its children, from the first byte
  sudo tcprism connections                 one line per connection as it ends
  sudo tcprism retransmits                 what is retransmitted, why, and whose bytes
  sudo tcprism demo                        see it work on an idle machine
  tcprism doctor                           what works on this machine

See tcprism COMMAND --help for the details."""


@click.group(cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tcprism", message="%(prog)s %(version)s")
def cli() -> None:
    """See what every TCP connection on this machine is doing, from inside the kernel."""


# What click does not know better than that an option takes no value.
_HINTS = {
    "--tls": "--tls reads plaintext and takes no value; `tcprism requests --tls=handshakes` shows"
    " handshakes and reads none"
}


def main() -> NoReturn:
    """Run the command line; every error of ours is one sentence on stderr."""
    if sys.argv[-1] == "--" and "--" not in sys.argv[:-1]:
        fail("-- must be followed by a command, for example -- curl http://host/", 2)
    try:
        cli.main(prog_name="tcprism", standalone_mode=False)
    except Error as error:
        fail(str(error), error.exit_status)
    except click.ClickException as error:
        if isinstance(error, click.BadOptionUsage) and error.option_name in _HINTS:
            fail(_HINTS[error.option_name], error.exit_code)
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "tcprism"
        said = error.format_message().rstrip(".")
        fail(f"{said}; see `{command} --help`", error.exit_code)
    except Interrupted as error:
        fail(str(error), 128 + asked())
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        from tcprism.cli.output import silence

        silence(sys.stdout)
        fail(f"cannot write the output: {error.strerror}", 1)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(128 + SIGINT)
    sys.exit(0)


def fail(message: str, status: int) -> NoReturn:
    """Print one sentence on stderr and exit; names in it may be anything."""
    from tcprism.events.escape import escape_text  # not at the start: it needs NumPy

    print(f"tcprism: {escape_text(message)}", file=sys.stderr)
    sys.exit(status)
