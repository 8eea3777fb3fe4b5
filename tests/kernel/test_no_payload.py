"""With `--payload 0` no loaded program has an instruction that copies payload, as bpftool shows."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tcprism.filters import Criteria
from tcprism.ring import rings
from tcprism.sources.request import Request
from tcprism.sources.tracing import Tracing
from tests.support.tracer import bpf_of

pytestmark = pytest.mark.native  # 10 minutes in a machine, where it passed on 6.12

# Helpers that copy memory, and the register that has the length (include/uapi/linux/bpf.h).
COPIES = {"bpf_probe_read_user": "2", "bpf_probe_read_kernel": "2", "bpf_skb_load_bytes": "4"}
CALL = re.compile(r"call (bpf_\w+)")
LONGEST_STRUCTURE = 56  # bytes: the kernel's struct user_msghdr

Copy = tuple[str, int | None]


def _bpftool(*arguments: str) -> Any:
    done = subprocess.run(["bpftool", "-j", *arguments], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def _copies(lines: list[str]) -> Iterator[Copy]:
    """Yield the calls that copy memory: whose, and how many bytes if that is constant."""
    for number, line in enumerate(lines):
        found = CALL.search(line)
        if found and (register := COPIES.get(found[1])):
            to_length = re.compile(rf"\) [rw]{register} \S*= ")
            before = next(each for each in reversed(lines[:number]) if to_length.search(each))
            constant = re.fullmatch(r"\(b[47]\) [rw]\d = (\d+)", before)
            yield found[1], int(constant[1]) if constant else None


def _loaded(payload: int, of_segments: int) -> tuple[list[Copy], list[int], bool]:
    """Return what the programs copy, the limits in their data, and whether that is frozen."""
    before = bpf_of(os.getpid())
    kinds = ("send", "recv", "transmit", "receive", "close", "retransmit", "drop")
    request = Request(
        kinds, Criteria(), payload=payload, segment_payload=of_segments, ring_size=rings.SMALLEST
    )
    with Tracing(request):
        held = bpf_of(os.getpid())
        programs = [_bpftool("prog", "dump", "xlated", "id", str(number))
                    for number in held["prog"] - before["prog"]]  # fmt: skip
        maps = [_bpftool("map", "show", "id", str(number)) for number in held["map"]]
        read_only = [each for each in maps if each.get("name", "").endswith(".rodata")]
        data = [_bpftool("map", "dump", "id", str(each["id"])) for each in read_only]
    lines = [[line["disasm"] for line in program if "disasm" in line] for program in programs]
    limits = re.findall(r'"(?:segment_)?payload_limit": (\d+)', json.dumps(data))
    return (
        [copy for each in lines for copy in _copies(each)],
        list(map(int, limits)),
        all(each["frozen"] for each in read_only),
    )


@pytest.fixture(autouse=True)
def _tool() -> None:
    if not shutil.which("bpftool"):
        pytest.skip("needs the package bpftool")


def test_with_payload_there_are_such_instructions() -> None:
    """What is counted below is what copies."""
    copies, limits, frozen = _loaded(payload=64, of_segments=64)
    lengths = [length for name, length in copies if name != "bpf_probe_read_kernel"]
    assert None in lengths
    assert (limits, frozen) == ([64, 64], True)


def test_without_payload_none_is_left() -> None:
    """What is read is of a constant length, no longer than the kernel's own structures."""
    copies, limits, frozen = _loaded(payload=0, of_segments=0)
    assert copies
    assert [copy for copy in copies if copy[1] is None or copy[1] > LONGEST_STRUCTURE] == []
    assert (limits, frozen) == ([0, 0], True)
