"""Options of TCP headers as columns, from bytes written out by hand."""

from typing import Any

import numpy as np
import pytest

from tcprism.events import Part
from tcprism.events._wire import OPTIONS_MAX
from tcprism.events.columns import BY_NAME
from tcprism.events.tcp_options import with_options

from .records import rows_of

NAMES = ("accecn_ee0b", "accecn_eceb", "accecn_ee1b")


def segment(options: bytes) -> Part:
    """Return a segment with options, as a ring has it, old bytes behind."""
    tail = np.full((1, OPTIONS_MAX), 0xA5, np.uint8)
    tail[0, : len(options)] = list(options)
    rows = rows_of("segment", [{"options_length": len(options)}])
    return with_options(Part(rows, tail))


def values(options: bytes, *names: str) -> list[Any]:
    part = segment(options)
    return [BY_NAME[name].to_list(part)[0] for name in names]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ("ac0b 0004d2 000001 00000a 00", [1234, 1, 10]),  # EE0B, ECEB, EE1B
        ("ae0b 0004d2 000001 00000a 00", [10, 1, 1234]),  # EE1B, ECEB, EE0B
        ("ac08 ffffff 000102", [0xFFFFFF, 0x102, None]),
        ("ae05 000003 010101", [None, None, 3]),
        ("ac02 0101", [None, None, None]),
        ("0101 080a 00000001 00000002 ac0b 000007 000008 000009 00", [7, 8, 9]),
        ("01" * 38 + "ae02", [None, None, None]),  # at the very end
        ("ac0b 0004d2 0000", [None, None, None]),  # cut off
        ("0101 0101", [None, None, None]),
    ],
)
def test_accurate_ecn(options: str, found: list[int | None]) -> None:
    """RFC 9768, 3.2.3: the kind says in which order the counters come, the length how many."""
    assert values(bytes.fromhex(options), *NAMES) == found


def test_options_beside_accurate_ecn_are_read() -> None:
    options = bytes.fromhex("0101 080a 00000001 00000002 ac05 000007 010101")
    assert values(options, "ts_val", "ts_ecr", "accecn_ee0b") == [1, 2, 7]
