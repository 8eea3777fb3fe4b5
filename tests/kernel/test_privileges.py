"""What a hook needs, as docs/privileges.md says, and not less."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from tcprism.sources import plan
from tests.support import privileges

pytestmark = pytest.mark.native


def _hook(kind: str, mechanism: str) -> Callable[[], None]:
    probe = next(probe for probe in plan.PROBES if kind in probe.kinds)
    hook = next(hook for hook in probe.hooks if hook.mechanism == mechanism)
    return partial(privileges.put_on, probe, hook)


@pytest.mark.parametrize(
    ("work", "needed"),
    [
        (_hook("send", "tracepoint"), ("CAP_BPF", "CAP_PERFMON")),
        (_hook("transmit", "tracepoint"), ("CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN")),
        (_hook("connect", "tracepoint"), ("CAP_BPF", "CAP_PERFMON")),
        (privileges.take_snapshot, ("CAP_BPF", "CAP_PERFMON")),
        (privileges.measure_run_time, ("CAP_SYS_ADMIN",)),
    ],
    ids=("messages", "segments", "connections", "snapshots", "run time"),
)
def test_no_less_will_do(work: Callable[[], None], needed: tuple[str, ...]) -> None:
    assert privileges.works_with(needed, work)
    for name in needed:
        assert not privileges.works_with([each for each in needed if each != name], work)
