"""What a hit of a uprobe costs: the trap, by a program that does nothing, and our own programs."""

from __future__ import annotations

import os
import subprocess
from collections import defaultdict

from benchmarks.bpf import Programs, Runs, runs_of, statistics
from benchmarks.build import PROGRAMS, bpf_object
from benchmarks.kernel import Watched, read_during
from benchmarks.table import Table
from benchmarks.tls_loads import ALONE, Files, python
from tcprism.filters import Criteria
from tcprism.sources.request import Request
from tcprism.tls.elf import ElfFile
from tests.support.netns import Netns
from tests.support.programs import compiled

_PLACES = {b"emulated": "an instruction that the kernel emulates", b"stepped": "any other"}
_CALLS = 10_000
_KINDS = ("send", "recv", "tls_send", "tls_recv")
_PROGRAMS = {
    "tls_write_ex": "our program where SSL_write() begins",
    "tls_read_ex": "where SSL_read() begins",
    "tls_returned_ex": "where either returns",
}


def run(netns: Netns, files: Files, repeats: int) -> None:
    """Measure, and print two tables."""
    entry, both = _traps()
    table = Table(
        "what a hit takes without a program's own time", ("at", "uprobe, ns", "return, ns")
    )
    for name, alone, with_return in zip(_PLACES.values(), entry, both, strict=True):
        table.add(name, f"{alone:.0f}", f"{with_return - alone:.0f}")
    table.print()
    own = {payload: _own(netns, files, payload, repeats) for payload in (0, 256)}
    table = Table(
        "what our programs add to a hit, ns, net of an empty one",
        ("program", "no payload", "64 bytes of payload"),
    )
    for program, title in _PROGRAMS.items():
        table.add(title, *(f"{each[program]:.0f}" for each in own.values()))
    table.print()


def _traps() -> tuple[list[float], list[float]]:
    """Return nanoseconds a call of each place: with an entry probe; with both probes."""
    program = str(compiled(PROGRAMS / "hits.c"))
    places = _offsets(program)

    def measure() -> list[float]:
        command = (*ALONE, program, str(_CALLS))
        told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        return [float(each) for each in told.split()]

    with Programs(bpf_object("empty_uprobe")) as programs:
        for place in places:
            programs.attach_to_function("empty_entry", program, place, returns=False)
        entry = measure()
        for place in places:
            programs.attach_to_function("empty_return", program, place, returns=True)
        return entry, measure()


def _offsets(program: str) -> list[int]:
    descriptor = os.open(program, os.O_RDONLY | os.O_CLOEXEC)
    try:
        file = ElfFile(descriptor)
        symbols = file.internal()
        assert symbols
        addresses = symbols.addresses([*_PLACES])
        offsets = [file.code_offset(addresses[name]) for name in _PLACES]
        return [offset for offset in offsets if offset is not None]
    finally:
        os.close(descriptor)


def _own(netns: Netns, files: Files, payload: int, repeats: int) -> dict[str, float]:
    """Return each program's nanoseconds a run, the least of several rounds."""
    found: dict[str, float] = defaultdict(lambda: float("inf"))
    request = Request(_KINDS, Criteria(netns=(netns.inode,)), payload=payload)
    load = python("ping-pong", 0.3)
    with statistics(), Programs(bpf_object("empty")) as empty, Watched(request) as monitor:
        empty.attach(("tracepoint_send", "tracepoint_recv"))
        nothing, ours = empty.descriptors(), monitor.descriptors()
        for _ in range(repeats):
            before = {**_runs(ours), **{f"empty {k}": v for k, v in _runs(nothing).items()}}
            read_during(monitor, lambda: load.run(netns, files))
            alone = min(
                runs.since(before[f"empty {name}"]).average
                for name, runs in _runs(nothing).items()
                if runs.count > before[f"empty {name}"].count
            )
            for name, runs in _runs(ours).items():
                found[name] = min(found[name], runs.since(before[name]).average - alone)
    return found


def _runs(descriptors: dict[str, int]) -> dict[str, Runs]:
    return {name: runs_of(descriptor) for name, descriptor in descriptors.items()}
