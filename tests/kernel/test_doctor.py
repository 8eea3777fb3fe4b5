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


def _as_nobody(*capabilities: str, arguments: tuple[str, ...] = ()) -> str:
    """Return what doctor says to nobody with some capabilities."""
    held = ",".join(("-all", *(f"+{name.removeprefix('CAP_').lower()}" for name in capabilities)))
    prefix = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    return subprocess.run(
        [*prefix, f"--inh-caps={held}", f"--ambient-caps={held}", TCPRISM, "doctor", *arguments],
        capture_output=True, text=True, timeout=PATIENCE,
    ).stdout  # fmt: skip


@pytest.mark.native
@pytest.mark.parametrize(
    ("held", "missing"),
    [
        ((), ("CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN", "CAP_SYS_ADMIN")),
        (("CAP_BPF", "CAP_PERFMON"), ("CAP_NET_ADMIN", "CAP_SYS_ADMIN")),
        (("CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN"), ("CAP_SYS_ADMIN",)),
        (("CAP_SYS_ADMIN",), ("CAP_NET_ADMIN",)),
    ],
    ids=["none", "without the network's", "as a service", "the administrator's"],
)
def test_privileges_are_said(held: tuple[str, ...], missing: tuple[str, ...]) -> None:
    """What is said to be missing is what was taken away, and each has what it is for."""
    reading = "CAP_DAC_READ_SEARCH"  # of Python itself, which may be below /root
    said = json.loads(_as_nobody(*held, reading, arguments=("--json",)))
    assert said["privileges"]["user"] == "nobody"
    told = [name for each in said["privileges"]["purposes"] for name in each["missing"]]
    assert sorted(told) == sorted((*missing, "CAP_SYS_PTRACE"))
    text = _as_nobody(*held, reading)
    lacked = [line.split(",")[0] for line in text.splitlines() if " lacks CAP_" in line]
    for name in missing:
        assert any(name in line.split() for line in lacked), text
    assert "run it by sudo" in text
    assert ("lacks CAP_BPF and CAP_PERFMON, for any event" in text) == ("CAP_BPF" in missing)
