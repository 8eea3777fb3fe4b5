"""Options of TCP headers as columns and in text, from bytes written out by hand."""

import io
from typing import Any

import numpy as np
import pytest

from tcprism.events import Batch, Part
from tcprism.events._wire import OPTIONS_MAX
from tcprism.events.columns import BY_NAME
from tcprism.events.tcp_options import with_options
from tcprism.sinks.text import Text

from .records import rows_of

SYN, ACK = 0x02, 0x10
NAMES = ("accecn_ee0b", "accecn_eceb", "accecn_ee1b")


def segment(options: bytes, flags: int = 0) -> Part:
    """Return a segment with options, as a ring has it, old bytes behind."""
    tail = np.full((1, OPTIONS_MAX), 0xA5, np.uint8)
    tail[0, : len(options)] = list(options)
    rows = rows_of("segment", [{"options_length": len(options), "flags": flags}])
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


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        (
            "0204 05b4 0402 080a 00000007 00000000 01 0303 0a",  # of a SYN, as Linux has them
            "[MSS 1460, window scale 10, SACK permitted, TSval 7, TSecr 0]",
        ),
        (
            "0101 080a 00000007 00000009 0101 0512 000003e9 000007d1 00000bb9 00000fa1",
            "[TSval 7, TSecr 9, SACK 1001:2001, 3001:4001]",
        ),
        ("0204 05b4 220a 0102030405060708 0101", "[MSS 1460, Fast Open cookie bytes 8]"),
        ("0204 05b4 2202 0101", "[MSS 1460, Fast Open cookie bytes 0]"),
        ("ac08 000002 000001", "[AccECN EE0B 2, AccECN ECEB 1]"),
        ("1e08 2001 00000001 1303 00", "[MPTCP DSS]"),
        ("0101 0101", ""),
        ("", ""),
    ],
)
def test_text_shows_them_behind_the_window(options: str, shown: str) -> None:
    flags, file = SYN if "0204" in options else ACK, io.BytesIO()
    part = segment(bytes.fromhex(options), flags)
    Text(file, color=False, style="none").write(Batch([part], 1))
    line = file.getvalue().decode("ascii").rstrip()
    assert line.partition(" win ")[2].partition(" ")[2] == shown
