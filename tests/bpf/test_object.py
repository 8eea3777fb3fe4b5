"""An object of another version, or none, is refused in one sentence that says what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import build_bpf
from tcprism.errors import MachineError
from tcprism.kernel.object import BpfObject

USES: dict[str, Callable[[BpfObject], object]] = {
    "there is no map ledger_of_old": lambda bpf: bpf.map_fd("ledger_of_old"),
    "there is no program old": lambda bpf: bpf.select(["old"]),
    "there is no program older": lambda bpf: bpf.attach("older"),
}


@pytest.mark.parametrize("reason", USES)
def test_what_is_not_there(reason: str, compiled: Callable[[str], Path]) -> None:
    path = compiled("lanes")
    with BpfObject(path) as bpf, pytest.raises(MachineError) as refused:
        USES[reason](bpf)
    assert f"{path} do not fit this version of tcprism ({reason})" in str(refused.value)


def test_a_smaller_configuration(tmp_path: Path) -> None:
    """Ours would be written past its end."""
    source, path = tmp_path / "small.bpf.c", tmp_path / "small.bpf.o"
    source.write_text("const volatile int config = 1;\nint unused(void) { return config; }\n")
    build_bpf.build(source, path)
    with BpfObject(path) as bpf, pytest.raises(MachineError, match="its configuration is another"):
        bpf.configure({}, {})


@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_no_object(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "tcprism.bpf.o"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(MachineError, match=r"run `python tools/build_bpf\.py`"):
        BpfObject(path)
