"""What programs keep that talk TLS while tcprism reads their plaintext, and what a call costs.

A load runs without tcprism, with `trace`, with `trace --tls`, and with bpftrace on the same
functions, in turns.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from statistics import median

from benchmarks import tls_hits
from benchmarks.build import PROGRAMS
from benchmarks.load import load_namespace
from benchmarks.monitors import bpftrace_script
from benchmarks.rounds import Rounds
from benchmarks.table import Table, Target, at_least
from benchmarks.tls_loads import Files, Load, ab, python, serving
from benchmarks.tracer import PINNED, tracing
from tcprism.tls.libraries import find
from tests.support.netns import Netns
from tests.support.tls import certificate

_NEEDED = ("openssl", "nginx", "ab")
_CALLS = 4  # in a turn of the ping-pong: a write and a read of each end
_MESSAGES = ("--kinds", "send,recv")
_NOTHING, _TLS, _BPFTRACE = "nothing", "--tls", "bpftrace"
_TRACED: dict[str, tuple[str, ...]] = {
    "trace": _MESSAGES,
    _TLS: (*_MESSAGES, "--tls", "--payload", "0"),
    "--tls, payload": (*_MESSAGES, "--tls", "--payload", "256"),
}
_PING_PONG = "ping-pong, 64 bytes"
_AB, _AB_KEPT = "ab -c 50, a connection a request", "ab -k -c 50"


def run(rounds: Rounds) -> None:
    """Measure, and print the tables."""
    if missing := [program for program in _NEEDED if not shutil.which(program)]:
        print(f"\ntls: not measured, this needs {', '.join(missing)}")
        return
    repeats, seconds = rounds.pick(1, 3, 9), rounds.pick(1, 1, 3)
    count = 10_000 * seconds
    loads = {
        _PING_PONG: python("ping-pong", seconds),
        "bulk, 16 KiB": python("bulk", seconds),
        _AB: ab(count // 10),
        _AB_KEPT: ab(count, "-k"),
        "ab -k, monitor on the same CPUs": ab(count, "-k", alone=False),
    }
    with load_namespace() as netns, tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        files = certificate(folder)
        tls_hits.run(netns, files, rounds.pick(3, 10, 20))
        rates = _rates(netns, folder, files, loads, repeats)
    _print_kept(rates, repeats)
    _print_cost(rates[_PING_PONG])


Rates = dict[str, list[float]]  # of each case, one a round


def _rates(
    netns: Netns, folder: Path, files: Files, loads: dict[str, Load], repeats: int
) -> dict[str, Rates]:
    rates: dict[str, Rates] = {name: defaultdict(list) for name in loads}
    with serving(netns, folder, files) as place:
        for _ in range(repeats):
            for case in (_NOTHING, *_TRACED, *([_BPFTRACE] if shutil.which("bpftrace") else [])):
                for alone in (True, False):
                    place(alone)
                    with _monitor(case, netns, files, alone):
                        for name, load in loads.items():
                            if load.alone == alone:
                                rates[name][case].append(load.run(netns, files))
    return rates


def _monitor(case: str, netns: Netns, files: Files, alone: bool) -> AbstractContextManager[object]:
    prefix = PINNED if alone else ()
    if case in _TRACED:
        return tracing(netns, *_TRACED[case], prefix=prefix)
    if case == _BPFTRACE:
        return _bpftrace(netns, files, prefix)
    return nullcontext()


@contextmanager
def _bpftrace(netns: Netns, files: Files, prefix: tuple[str, ...]) -> Iterator[None]:
    """Have bpftrace print the fields of every message of OpenSSL to a file."""
    library = next(each for each in find().libraries if "SSL_write" in each.functions)
    with tempfile.NamedTemporaryFile("w", suffix=".bt") as script:
        script.write((PROGRAMS / "tls_messages.bt").read_text().replace("$LIBSSL", library.path))
        script.flush()
        little = python("ping-pong", 0.01)
        with bpftrace_script((script.name,), prefix, lambda: little.run(netns, files)):
            yield


def _print_kept(rates: dict[str, Rates], repeats: int) -> None:
    targets: dict[str, Target] = {
        _PING_PONG: at_least(0.70, "{:.2f}"),
        _AB: at_least(0.92, "{:.2f}"),
        _AB_KEPT: at_least(0.92, "{:.2f}"),
    }
    cases = [case for case in (*_TRACED, _BPFTRACE) if case in rates[_PING_PONG]]
    table = Table(
        f"traffic kept of TLS, median of {repeats} rounds",
        ("load", "a second", *cases, "target of --tls", ""),
    )
    for name, each in rates.items():
        kept = {
            case: median(
                ours / alone for ours, alone in zip(each[case], each[_NOTHING], strict=True)
            )
            for case in cases
        }
        target = targets.get(name)
        verdict = target.cells(kept[_TLS])[1:] if target else ("", "")
        shares = [f"{kept[case]:.2f}" for case in cases]
        table.add(name, f"{median(each[_NOTHING]):,.0f}", *shares, *verdict)
    table.print()


def _print_cost(rates: Rates) -> None:
    table = Table("what a call into the library takes longer", ("case", "µs, with that of TCP"))
    alone = median(rates[_NOTHING])
    for case in [case for case in (*_TRACED, _BPFTRACE) if case in rates]:
        table.add(case, f"{(1e6 / median(rates[case]) - 1e6 / alone) / _CALLS:.1f}")
    table.print()
