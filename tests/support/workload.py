"""A program that makes each call once, in every way there is, and logs the truth about it."""

import json
import re
import subprocess
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from .netns import Netns
from .programs import TARGETS, compiled

SOURCE = Path(__file__).parent / "programs" / "workload" / "workload.c"

# What a run is: the size of its program, its addresses, and the first of its ports.
VARIANTS = {
    "ipv4": (64, "4", 21000),
    "ipv6": (64, "6", 22000),
    "mapped": (64, "mapped", 23000),
    "32-bit": (32, "4", 24000),
}


@cache
def scenarios() -> list[str]:
    """Return the names of the scenarios, as the source has them."""
    return re.findall(r"SCENARIO\(([a-z]\w*)\)", SOURCE.read_text())


def build(bits: int) -> Path:
    """Return the program for callers of so many bits."""
    return compiled(SOURCE, bits)


Bytes = bytes  # inside Call the name `bytes` is a field


@dataclass(frozen=True)
class Call:
    """What one call really did."""

    scenario: str
    call: str
    kind: str
    pid: int
    tid: int
    comm: str
    requested: int
    bytes: int
    error: str | None
    path: str
    flags: str
    local_port: int
    remote_port: int
    data: Bytes = field(repr=False)
    offset: int = 0  # where in its stream the bytes begin


def read_truth(log: Path) -> list[Call]:
    """Return the calls of a log, in the order in which they returned."""
    calls = []
    done: dict[tuple[str, int, str], int] = defaultdict(int)
    for line in log.read_text().splitlines():
        values = json.loads(line)
        stream = (values["scenario"], values["local_port"], values["kind"])
        values |= {"data": bytes.fromhex(values["data"]), "offset": done[stream]}
        calls.append(Call(**values))
        done[stream] += 0 if values["flags"] == "PEEK" else values["bytes"]
    return calls


def command(variant: str, log: Path, *names: str) -> list[str]:
    """Return the command that runs scenarios (all, or those named) and logs what they did."""
    bits, addresses, port = VARIANTS[variant]
    return [str(build(bits)), "calls", str(log), addresses, str(port), *names]


def run_calls(netns: Netns, variant: str, log: Path, *names: str) -> list[Call]:
    """Run scenarios in a namespace and return what they did."""
    inside = netns.command(*command(variant, log, *names))
    result = subprocess.run(inside, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    return read_truth(log)


if __name__ == "__main__":
    for bits in TARGETS:
        print(build(bits))
