"""What programs keep that talk TLS while tcprism reads their plaintext, and what a call costs.

A load runs without tcprism, with `trace`, and with `trace --tls`, in turns.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median

from benchmarks.build import PROGRAMS
from benchmarks.load import LOAD_CPU, load_namespace
from benchmarks.rounds import Rounds
from benchmarks.table import Table, Target, at_least
from benchmarks.tracer import tracing
from tests.support.netns import Netns
from tests.support.nginx import nginx
from tests.support.tls import certificate

_NEEDED = ("openssl", "nginx", "ab")
_CALLS = 4  # in a turn of the ping-pong: a write and a read of each end
_MESSAGES = ("--kinds", "send,recv")
CASES: dict[str, tuple[str, ...] | None] = {
    "nothing": None,
    "trace": _MESSAGES,
    "--tls": (*_MESSAGES, "--tls", "--payload", "0"),
    "--tls, payload": (*_MESSAGES, "--tls", "--payload", "256"),
}
_ALONE = ("chrt", "-f", "1", "taskset", "-c", str(LOAD_CPU))  # what else runs costs it nothing
_RATE = re.compile(r"Requests per second: +([\d.]+)")

Load = Callable[[Netns, tuple[str, str]], float]


def python(name: str, seconds: int) -> Load:
    """Return a load of Python's ssl; its rate is turns or writes a second."""
    program = str(PROGRAMS / "tls_load.py")

    def run(netns: Netns, files: tuple[str, str]) -> float:
        return float(netns.run(*_ALONE, sys.executable, program, name, str(seconds), *files))

    return run


def ab(count: int) -> Load:
    """Return ab's load on nginx; its rate is requests a second."""

    def run(netns: Netns, _files: tuple[str, str]) -> float:
        command = ("ab", "-q", "-k", "-c", "50", "-n", str(count), "https://127.0.0.1:8080/hello")
        found = _RATE.search(netns.run(*_ALONE, *command))
        assert found
        return float(found[1])

    return run


def run(rounds: Rounds) -> None:
    """Measure, and print two tables."""
    if missing := [program for program in _NEEDED if not shutil.which(program)]:
        print(f"\ntls: not measured, this needs {', '.join(missing)}")
        return
    repeats, seconds = rounds.pick(1, 5, 9), rounds.pick(1, 2, 3)
    loads: dict[str, tuple[Load, Target | None]] = {
        "ping-pong, 64 bytes": (python("ping-pong", seconds), at_least(0.70, "{:.2f}")),
        "bulk, 16 KiB": (python("bulk", seconds), None),
        "ab -k -c 50": (ab(10_000 * seconds), at_least(0.92, "{:.2f}")),
    }
    rates = _rates({name: load for name, (load, _) in loads.items()}, repeats)
    _print_kept({name: target for name, (_, target) in loads.items()}, rates, repeats)
    _print_cost(rates["ping-pong, 64 bytes"])


Rates = dict[str, list[float]]  # of each case, one a round


def _rates(loads: dict[str, Load], repeats: int) -> dict[str, Rates]:
    rates: dict[str, Rates] = {name: defaultdict(list) for name in loads}
    with load_namespace() as netns, tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        files = certificate(folder)
        with nginx(netns, folder, tls=files):
            _put_alone(int((folder / "nginx.pid").read_text()))
            for _ in range(repeats):
                for case, arguments in CASES.items():
                    for name, load in loads.items():
                        rates[name][case].append(_rate(netns, load, files, arguments))
    return rates


def _put_alone(parent: int) -> None:
    """Have nginx's workers run as the loads do."""
    for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        os.sched_setaffinity(int(child), {LOAD_CPU})
        os.sched_setscheduler(int(child), os.SCHED_FIFO, os.sched_param(1))


def _rate(
    netns: Netns, load: Load, files: tuple[str, str], arguments: tuple[str, ...] | None
) -> float:
    if arguments is None:
        return load(netns, files)
    with tracing(netns, *arguments):
        return load(netns, files)


def _print_kept(targets: dict[str, Target | None], rates: dict[str, Rates], repeats: int) -> None:
    table = Table(
        f"traffic kept of TLS, median of {repeats} rounds",
        ("load", "a second", *(case for case in CASES if case != "nothing"), "target of --tls", ""),
    )
    for name, cases in rates.items():
        kept = {
            case: median(ours / alone for ours, alone in zip(each, cases["nothing"], strict=True))
            for case, each in cases.items()
        }
        target = targets[name]
        verdict = target.cells(kept["--tls"])[1:] if target else ("", "")
        shares = (f"{kept[case]:.2f}" for case in CASES if case != "nothing")
        table.add(name, f"{median(cases['nothing']):,.0f}", *shares, *verdict)
    table.print()


def _print_cost(rates: Rates) -> None:
    table = Table("what a call into the library takes longer", ("case", "µs, with that of TCP"))
    alone = median(rates["nothing"])
    for case, each in rates.items():
        if case != "nothing":
            table.add(case, f"{(1e6 / median(each) - 1e6 / alone) / _CALLS:.1f}")
    table.print()
