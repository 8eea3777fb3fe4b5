"""Runs the benchmarks, all or some, as root: `python -m benchmarks [--only NAME] [--quick]`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from importlib import import_module

BENCHMARKS = ("start", "kernel", "ring", "sinks", "kept")
MODULES = {"sinks": "saturation"}


def main() -> int:
    """Run what the arguments choose."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--only", action="append", choices=BENCHMARKS, help="repeatable")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a look, no proof")
    options = parser.parse_args()
    if os.geteuid():
        print("benchmarks: they load BPF programs; run them as root", file=sys.stderr)
        return 1
    for name in options.only or BENCHMARKS:
        begin = time.monotonic()
        import_module(f"benchmarks.{MODULES.get(name, name)}").run(options.quick)
        print(f"  ({name}: {time.monotonic() - begin:.0f} s)", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
