"""Facts about this machine that decide what can be traced."""

import pytest

from tcprism.errors import MachineError, PermissionMissing
from tcprism.features import machine


@pytest.mark.parametrize(
    ("have", "missing"),
    [
        ({"CAP_SYS_ADMIN"}, None),
        ({"CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN"}, None),
        ({"CAP_BPF", "CAP_NET_ADMIN"}, r"\(CAP_PERFMON missing\)"),
        (set(), "CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN missing"),
    ],
)
def test_privileges(have: set[str], missing: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {name: name in have for name in machine.capabilities()}
    monkeypatch.setattr(machine, "capabilities", lambda: found)
    if missing is None:
        machine.require()
        return
    with pytest.raises(PermissionMissing, match=missing):
        machine.require()


def test_another_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(MachineError, match=r"needs an x86-64 machine and this one is aarch64"):
        machine.require()
