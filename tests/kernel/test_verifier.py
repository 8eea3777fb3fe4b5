"""All programs at once: each kind has a hook, and the verifier has room to spare.

It gives up at a million instructions.
"""

import pytest

from tcprism.events._wire import PAYLOAD_MAX
from tcprism.events.kinds import KINDS
from tcprism.ring import rings
from tcprism.sources.request import CAPTURE_KINDS, Request
from tcprism.sources.tracing import Tracing
from tests.support import hooks
from tests.support.bpf import verified_instructions
from tests.support.forked import look_for_tls_in_processes_alone

LIMIT = 1_000_000  # BPF_COMPLEXITY_LIMIT_INSNS, include/linux/bpf.h
# Who asks for translations has segments from the hook that sees packets.
ALL = tuple(kind for kind in KINDS if kind != "translate")
WITH_A_CHOICE = ("send", "recv", "transmit")  # kinds that the first hook records, or another one


BEST = hooks.message_hooks()[0]


@pytest.mark.parametrize("hook", hooks.message_hooks())
def test_every_program_has_room(hook: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before 5.16 the kernel does not tell how much it took: only that it accepts each."""
    look_for_tls_in_processes_alone(monkeypatch.setattr)
    kinds = ALL if hook == BEST else WITH_A_CHOICE
    forced = None if hook == BEST else hook
    request = Request(
        kinds,
        payload=PAYLOAD_MAX,
        mechanism=forced,
        ring_size=rings.SMALLEST,
        skip_bodies=True,
    )
    chosen = load_with_room(request)
    assert chosen["message"] == hook
    if hook == BEST:
        assert chosen["segment"] == hooks.segment_hooks()[0]


def test_programs_that_read_packets_have_room() -> None:
    request = Request(
        CAPTURE_KINDS, options=True, segment_payload=PAYLOAD_MAX, ring_size=rings.SMALLEST
    )
    # 6.1 takes 196 thousand instructions for what 6.18 takes 36: translations double its paths.
    assert load_with_room(request, LIMIT // 4)["segment"] == "tracepoint"


def load_with_room(request: Request, most: int = LIMIT // 10) -> dict[str, object]:
    """Load what a request needs; return the mechanism of each probe."""
    with Tracing(request) as tracing:
        chosen: dict[str, object] = {
            each.probe.family: each.hook and each.hook.mechanism for each in tracing.choices
        }
        bpf = tracing._hooks._object
        taken = {name: verified_instructions(bpf.program_fd(name)) for name in bpf.loaded}
    assert None not in chosen.values()
    assert taken
    assert max(taken.values()) < most, taken
    return chosen
