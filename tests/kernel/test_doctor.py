"""`tcprism doctor`: every kind works on every kernel that the tests run on."""

import json
from pathlib import Path

from tests.support import hooks
from tests.support.forked import Forked
from tests.support.tracer import PATIENCE


def test_every_kind_works(tmp_path: Path) -> None:
    """The exit status says so, and each kind has the best hook that must load here."""
    run = Forked(["doctor", "--json"], tmp_path / "report")
    with run.stderr:
        status = run.wait(PATIENCE)
    report = json.loads((tmp_path / "report").read_text())
    assert {kind: found["error"] for kind, found in report["kinds"].items() if found["error"]} == {}
    assert (status, report["works"]) == (0, True)
    assert report["kinds"]["send"]["hook"] == hooks.message_hooks()[0]
    assert report["kinds"]["transmit"]["hook"] == hooks.segment_hooks()[0]
    assert report["kinds"]["acked"]["hook"] == "tracepoint"
