"""Which capabilities a hook needs: found by loading and attaching it without each of them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from tcprism.features import machine
from tcprism.filters import Criteria
from tcprism.kernel import confinement, run_time
from tcprism.probes import Hook, Probe
from tcprism.ring import rings
from tcprism.sources import plan
from tcprism.sources.request import Request
from tcprism.sources.snapshots import Snapshots
from tcprism.sources.tracing import Tracing

# include/uapi/linux/capability.h; what is asked for last is what is best done without.
CAPABILITIES = {
    "CAP_SYS_ADMIN": 21,
    "CAP_SYS_RESOURCE": 24,
    "CAP_SYS_PTRACE": 19,
    "CAP_DAC_READ_SEARCH": 2,
    "CAP_NET_ADMIN": 12,
    "CAP_PERFMON": 38,
    "CAP_BPF": 39,
}
NOBODY = (65534, 65534)
NOTHING = Criteria(ports=((1, 1),), local_ports=((2, 2),), remote_ports=((3, 3),))
_OTHERS = {"acked": ("send",), "tls_send": ("send", "recv")}  # which they cannot do without


def _held() -> set[str]:
    """Return those that this process has: a container may lack some."""
    status = Path("/proc/self/status").read_bytes()
    bits = int(re.findall(rb"\nCapPrm:\s*([0-9a-f]+)", status)[0], 16)
    return {name for name, bit in CAPABILITIES.items() if bits >> bit & 1}


def works_with(names: Sequence[str], work: Callable[[], object]) -> bool:
    """Tell whether a process of nobody's with some capabilities can do some work."""
    child = os.fork()
    if not child:
        status = 1
        try:
            confinement.drop_capabilities(NOBODY, [CAPABILITIES[name] for name in names])
            machine.require = lambda: None
            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), 2)
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1] == 0


def needed(work: Callable[[], object]) -> tuple[str, ...] | None:
    """Return the fewest capabilities with which some work can be done; None: with none of them."""
    names = [name for name in CAPABILITIES if name in _held()]
    if not works_with(names, work):
        return None
    for name in list(names):
        fewer = [each for each in names if each != name]
        if works_with(fewer, work):
            names = fewer
    return tuple(reversed(names))


def hooks() -> Iterator[tuple[Probe, Hook]]:
    """Yield each way to see each family."""
    for probe in plan.PROBES:
        for hook in probe.hooks:
            yield probe, hook


def put_on(probe: Probe, hook: Hook) -> None:
    """Load and attach a hook, and no other of the family. Raises Error."""
    plan.forced = lambda request, probes: {probe.family: hook.mechanism}
    kinds = (*_OTHERS.get(probe.kinds[0], ()), *probe.kinds)
    request = Request(kinds=kinds, filter=NOTHING, ring_size=rings.SMALLEST)
    with Tracing(request) as tracing:
        (choice,) = (each for each in tracing.choices if each.probe is probe)
        assert choice.hook is hook


def take_snapshot() -> None:
    """Read the state of all connections."""
    with Snapshots(NOTHING, every=1.0) as snapshots:
        snapshots.take()


def measure_run_time() -> None:
    """Have the kernel measure BPF programs."""
    with suppress(AttributeError):
        os.close(run_time._measure())
