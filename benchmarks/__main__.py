"""Runs the benchmarks, all or some, as root: `python -m benchmarks [--only NAME] [--quick]`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from importlib import import_module

from benchmarks.rounds import Rounds

MODULES = {
    "start": "start",
    "kernel": "kernel",
    "ring": "ring",
    "payload": "payload",
    "sinks": "saturation",
    "recording": "recording",
    "throughput": "throughput",
    "snapshots": "snapshots",
    "explain": "explain",
    "requests": "requests",
    "servers": "servers",
    "serve": "serve",
    "soak": "soak",
    "page": "page",
    "fleet": "fleet",
    "tls": "tls",
}


def rounds_of(options: argparse.Namespace) -> Rounds:
    """Return how long to measure."""
    if options.quick:
        return Rounds.QUICK
    return Rounds.FULL if options.full else Rounds.NORMAL


def main() -> int:
    """Run what the arguments choose."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--only", action="append", choices=MODULES, help="repeatable")
    rounds = parser.add_mutually_exclusive_group()
    rounds.add_argument("--quick", action="store_true", help="fewer rounds: a look, no proof")
    rounds.add_argument("--full", action="store_true", help="more rounds: steadier figures")
    options = parser.parse_args()
    if os.geteuid():
        print("benchmarks: they load BPF programs; run them as root", file=sys.stderr)
        return 1
    for name in options.only or MODULES:
        begin = time.monotonic()
        import_module(f"benchmarks.{MODULES[name]}").run(rounds_of(options))
        print(f"  ({name}: {time.monotonic() - begin:.0f} s)", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
