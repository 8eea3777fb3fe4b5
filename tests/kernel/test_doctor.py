"""`tcprism doctor`: every kind works on every kernel that the tests run on."""

import json
import subprocess

import pytest

from tests.support import hooks
from tests.support.tracer import PATIENCE, TCPRISM


@pytest.mark.native  # test_verifier.py has all kinds everywhere, at once
def test_every_kind_works() -> None:
    """The exit status says so, and each kind has the best hook that must load here."""
    run = subprocess.run(
        [TCPRISM, "doctor", "--json"], capture_output=True, text=True, timeout=PATIENCE
    )
    report = json.loads(run.stdout)
    assert {kind: found["error"] for kind, found in report["kinds"].items() if found["error"]} == {}
    assert (run.returncode, report["works"]) == (0, True)
    assert report["kinds"]["send"]["hook"] == hooks.message_hooks()[0]
    assert report["kinds"]["transmit"]["hook"] == hooks.segment_hooks()[0]
    assert report["kinds"]["acked"]["hook"] == "tracepoint"
