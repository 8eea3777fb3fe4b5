"""`tcprism export`."""

from __future__ import annotations

import sys
from typing import Any

import click

from tcprism.cli import options
from tcprism.cli.capture_options import capture_option, parse_capture_filter
from tcprism.cli.output import format_sink, naming, opened
from tcprism.cli.recordings import (
    open_recording,
    parse_output,
    play,
    print_trouble,
    shown_kinds,
)
from tcprism.cli.session import Limits, Stop
from tcprism.stages import accounts

EPILOG = """\b
Examples:
  tcprism export run.tcpr --to pcapng -o run.pcapng     for Wireshark and tshark
  tcprism export run.tcpr --to pcapng --packets messages -o -  | wireshark -k -i -
  tcprism export run.tcpr --to parquet -o run.parquet   for DuckDB, Polars, pandas, ClickHouse
  tcprism export run.tcpr --to arrow -o run.arrows      an Arrow IPC stream
  tcprism export run.tcpr --to csv --kinds close -o connections.csv

docs/export.md describes each format. `tcprism trace --format FORMAT` writes them live."""


@click.command(epilog=EPILOG)
@click.argument("file", metavar="FILE")
@click.option(
    "--to",
    "form",
    required=True,
    metavar="FORMAT",
    help="pcapng, parquet, arrow, json, csv, or an installed format.",
)
@click.option(
    "-o", "--output", required=True, metavar="FILE", help="File to write; - for standard output."
)
@options.packets_option
@options.stage_option
@options.selection_options
@capture_option
def command(**given: Any) -> None:
    """Convert a recording to a format that other tools read."""
    stages, captured = options.parse_stages(given), parse_capture_filter(given)
    recording, wanted = open_recording(given)
    with (
        opened(parse_output(given)) as output,
        Stop(Limits(), output, None) as stop,
    ):
        kinds = shown_kinds(recording, wanted)
        sink = format_sink(given["form"], given["packets"], kinds, output)
        play(
            recording, 0, (*stages, *naming(given["form"]), wanted, *captured), [sink], output, stop
        )
    for remark in accounts(captured).remarks:
        print(remark, file=sys.stderr)
    print_trouble(recording)
