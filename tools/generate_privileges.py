#!/usr/bin/env python3
"""Try which capabilities each hook needs on this kernel, and write that into docs/privileges.md.

Run it as root; under other kernels: `python vmtest/kernel_vm.py run 6.12 -- sh -c
'.venv/bin/python tools/generate_privileges.py --print' >FILE`, and then `--merge 6.12=FILE` here.
"""

from __future__ import annotations

import argparse
import platform
import re
import ssl  # noqa: F401 - its library is one whose functions can be hooked
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.support import privileges  # noqa: E402
from tests.support.forked import look_for_tls_in_processes_alone  # noqa: E402

PAGE = ROOT / "docs/privileges.md"


def kernel() -> str:
    """Return this kernel's version as the page has it."""
    return ".".join(platform.release().split("-")[0].split(".")[:2])


def rows() -> Iterator[tuple[str, str]]:
    """Yield what is tried, and what it needs here."""
    look_for_tls_in_processes_alone(setattr)
    for probe, hook in privileges.hooks():
        name = f"{', '.join(probe.kinds)}: {hook.mechanism}"
        yield name, _told(partial(privileges.put_on, probe, hook))
    yield "snapshots (`top`, `explain`, `connections`, `serve`)", _told(privileges.take_snapshot)
    yield "measuring BPF programs (`serve`)", _told(privileges.measure_run_time)


def _told(work: partial[None] | object) -> str:
    found = privileges.needed(work)  # type: ignore[arg-type]
    if found is None:
        return "not here"
    return ", ".join(name.removeprefix("CAP_") for name in found) or "none"


def merged(page: str, version: str, found: dict[str, str]) -> str:
    """Return the page with a column for a kernel, or with that column anew."""
    head, table, tail = re.split(r"(?:<!-- table -->\n|<!-- end -->\n)", page)
    lines = [line.strip("| \n").split(" | ") for line in table.splitlines() if line.startswith("|")]
    columns = lines[0][1:] if lines else []
    known = {line[0]: dict(zip(columns, line[1:], strict=True)) for line in lines[2:]}
    columns = sorted({*columns, version}, key=lambda text: [*map(int, text.split("."))])
    for name, needs in found.items():
        known.setdefault(name, {})[version] = needs
    made = [["hook", *columns], ["---"] * (len(columns) + 1)]
    made += [[name, *(has.get(each, "?") for each in columns)] for name, has in known.items()]
    text = "".join(f"| {' | '.join(line)} |\n" for line in made)
    return f"{head}<!-- table -->\n{text}<!-- end -->\n{tail}"


def main() -> int:
    """Try, and write or print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--print", action="store_true", help="print rows, do not write the page")
    parser.add_argument("--merge", metavar="VERSION=FILE", help="take rows that were printed")
    options = parser.parse_args()
    if options.merge:
        version, _, name = options.merge.partition("=")
        lines = Path(name).read_text().splitlines()
        found = dict(line.split("\t") for line in lines if "\t" in line)
    else:
        version, found = kernel(), {}
        for name, needs in rows():
            found[name] = needs
            if options.print:
                print(f"{name}\t{needs}", flush=True)
    if not options.print:
        PAGE.write_text(merged(PAGE.read_text(), version, found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
