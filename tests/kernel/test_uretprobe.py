"""Whether return probes are safe for programs with seccomp filters."""

import os
import re

from tcprism.features.uretprobe import passes_filters, seccomp_sees_return_probes

GETPPID = 110
FIRST, FIXED = (6, 11), (6, 14)  # later updates of what is between may be fixed as well


def test_a_call_that_is_filtered() -> None:
    assert not passes_filters(GETPPID)


def test_this_kernel() -> None:
    version = tuple(map(int, re.findall(r"[0-9]+", os.uname().release)[:2]))
    if version < FIRST or version >= FIXED:
        assert not seccomp_sees_return_probes()
