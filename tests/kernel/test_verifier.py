"""The verifier, which gives up at a million instructions, has room to spare with every program."""

import pytest

from tcprism.events._wire import PAYLOAD_MAX
from tcprism.events.kinds import KINDS
from tcprism.ring import rings
from tcprism.sources.request import Request
from tcprism.sources.tracing import Tracing
from tests.support import hooks
from tests.support.bpf import verified_instructions

LIMIT = 1_000_000  # BPF_COMPLEXITY_LIMIT_INSNS, include/linux/bpf.h


@pytest.mark.parametrize("hook", hooks.message_hooks())
def test_every_program_has_room(hook: str) -> None:
    """Before 5.16 the kernel does not tell how much it took: only that it accepts each."""
    request = Request(KINDS, payload=PAYLOAD_MAX, mechanism=hook, ring_size=rings.SMALLEST)
    with Tracing(request) as tracing:
        bpf = tracing._hooks._object
        taken = {name: verified_instructions(bpf.program_fd(name)) for name in bpf.loaded}
    assert taken
    assert max(taken.values()) < LIMIT / 10, taken
