"""Runs the benchmarks, all or some, as root: `python -m benchmarks [--only NAME] [--quick]`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from importlib import import_module

from benchmarks.effort import Effort

MODULES = {
    "start": "start",
    "kernel": "kernel",
    "ring": "ring",
    "sinks": "saturation",
    "recording": "recording",
    "kept": "kept",
    "snapshots": "snapshots",
}


def effort_of(options: argparse.Namespace) -> Effort:
    """Return how long to measure."""
    if options.quick:
        return Effort.QUICK
    return Effort.FULL if options.full else Effort.NORMAL


def main() -> int:
    """Run what the arguments choose."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--only", action="append", choices=MODULES, help="repeatable")
    effort = parser.add_mutually_exclusive_group()
    effort.add_argument("--quick", action="store_true", help="fewer rounds: a look, no proof")
    effort.add_argument("--full", action="store_true", help="more rounds: steadier figures")
    options = parser.parse_args()
    if os.geteuid():
        print("benchmarks: they load BPF programs; run them as root", file=sys.stderr)
        return 1
    for name in options.only or MODULES:
        begin = time.monotonic()
        import_module(f"benchmarks.{MODULES[name]}").run(effort_of(options))
        print(f"  ({name}: {time.monotonic() - begin:.0f} s)", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
