"""The registry of kinds, the hooks and the kernel side say the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tcprism.kernel
from tcprism.events import KINDS
from tcprism.events._wire import EventKind
from tcprism.events.columns import columns_of
from tcprism.events.kinds import (
    BY_NAME,
    FAMILY_OF_KIND,
    NUMBERS,
    RECORDS,
    REGISTERED,
    family_of,
    kind_name,
)
from tcprism.sinks.text_details import each
from tcprism.sources.plan import PROBES

from .records import MAKERS, efforts, requests, snapshots

OBJECT = Path(tcprism.kernel.__file__).with_name("tcprism.bpf.o")


def test_every_kind_of_the_kernel_side_is_there_with_its_number() -> None:
    there = {kind.name.lower(): kind.value for kind in EventKind}
    assert there == {name: NUMBERS[name] for name in there}
    assert [kind_name(number) for number in NUMBERS.values()] == list(NUMBERS)


def test_what_hooks_make_stands_in_the_order_of_its_numbers() -> None:
    assert [NUMBERS[kind] for kind in KINDS] == list(range(len(KINDS)))


def test_every_kind_that_has_a_ring_is_made_by_a_program_of_its_probe() -> None:
    made = {
        kind
        for probe in PROBES
        for hook in probe.hooks
        for program in hook.programs
        for kind in program.kinds
        if kind in probe.kinds
    }
    assert made == set(KINDS)


def test_every_program_of_a_hook_is_in_the_object() -> None:
    if not OBJECT.exists():
        pytest.skip("no BPF object: run tools/build_bpf.py")
    symbols = OBJECT.read_bytes().split(b"\0")
    names = {program.name for p in PROBES for hook in p.hooks for program in hook.programs}
    assert {name for name in names if name.encode() not in symbols} == set()


def test_what_a_kind_needs_is_made_by_a_hook() -> None:
    assert {need for kind in BY_NAME.values() for need in kind.needs} <= set(KINDS)


@pytest.mark.parametrize("family", REGISTERED)
def test_a_record_tells_its_family(family: str) -> None:
    assert family_of(RECORDS[family]) == family
    assert {FAMILY_OF_KIND[kind.name] for kind in REGISTERED[family].kinds} == {family}


def test_a_record_of_the_same_size_is_of_no_family() -> None:
    size = RECORDS["loss"].itemsize
    assert family_of(np.dtype([("other", f"V{size}")])) is None


@pytest.mark.parametrize("name", [kind.name for kind in BY_NAME.values() if kind.text])
def test_the_words_of_a_kind_are_about_columns_that_it_has(name: str) -> None:
    family = FAMILY_OF_KIND[name]
    make = (MAKERS | {"snapshot": snapshots, "request": requests, "effort": efforts})[family]
    write = BY_NAME[name].text
    assert write
    names = write.__code__.co_varnames[: write.__code__.co_argcount]
    assert set(names) <= {column.name for column in columns_of(family)}
    (text,) = each(write, make({"kind": NUMBERS[name]}))
    assert text.strip()
