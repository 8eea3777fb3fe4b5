"""Snapshots, as far as they need no kernel."""

from __future__ import annotations

import os

import pytest

from tcprism.errors import LibraryMissing
from tcprism.features import machine
from tcprism.filters import Criteria
from tcprism.sources import snapshots


def test_nothing_stays_open_where_there_is_no_libbpf(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise LibraryMissing("there is no libbpf")

    root = os.open("/", os.O_RDONLY)
    monkeypatch.setattr(machine, "require", lambda: None)
    monkeypatch.setattr(snapshots, "cgroup_root", lambda: root)
    monkeypatch.setattr(snapshots, "machine_context", lambda _root: None)
    monkeypatch.setattr(snapshots, "BpfObject", missing)
    with pytest.raises(LibraryMissing), snapshots.Snapshots(Criteria()):
        pass
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(root)
