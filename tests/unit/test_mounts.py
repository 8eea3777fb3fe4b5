"""Where cgroup v2 is mounted, among mounts with any names."""

import os
from pathlib import Path

import pytest

from tcprism import mounts


def test_names_of_mounts_are_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """proc(5), fstab(5): space, tab, newline and backslash are written in octal, no other byte."""
    table = tmp_path / "mounts"
    table.write_bytes(
        b"a\xe2\x80\xa8b /mnt/\xff\r\x0b\x85 tmpfs rw 0 0\n"
        b"cgroup2 /my\\040cgroups\\134\xff cgroup2 rw 0 0\n"
        b"\\040 / ext4 rw 0 0\n"
    )
    monkeypatch.setattr(mounts, "_MOUNTS", table)
    assert [os.fsencode(root) for root in mounts.cgroup_roots()] == [b"/my cgroups\\\xff"]


def test_cgroup_roots_are_those_of_mountinfo() -> None:
    lines = Path("/proc/self/mountinfo").read_bytes().split(b"\n")
    mounted = [line.split(b" ")[4] for line in lines if b" - cgroup2 " in line]
    assert list(map(os.fsencode, mounts.cgroup_roots())) == mounted
