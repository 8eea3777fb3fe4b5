"""Times and sizes for people."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcprism.events.units import DURATIONS, SIZES, duration, size


@pytest.mark.parametrize(
    ("microseconds", "shown"),
    [
        (0, "0 us"),
        (0.25, "0.25 us"),
        (12, "12 us"),
        (999, "999 us"),
        (999.5, "1 ms"),
        (1_204, "1.2 ms"),
        (40_088, "40.1 ms"),
        (99_960, "100 ms"),
        (999_499, "999 ms"),
        (999_500, "1 s"),
        (12_345_678, "12.3 s"),
        (86_400_000_000, "86400 s"),
    ],
)
def test_duration(microseconds: float, shown: str) -> None:
    assert duration(microseconds) == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 B"), (999, "999 B"), (1_000, "1 kB"), (1_234_567, "1.23 MB"), (10**16, "10000 TB")],
)
def test_size(count: int, shown: str) -> None:
    assert size(count) == shown


@given(st.integers(0, 2**64))
def test_three_digits_are_right(value: int) -> None:
    for text, units in ((duration(value), DURATIONS), (size(value), SIZES)):
        number, unit = text.split(" ")
        assert float(number) * 1000 ** units.index(unit) == pytest.approx(value, rel=0.006)
        assert re.fullmatch(r"\d{1,3}|\d\.\d\d?|\d\d\.\d", number) or unit == units[-1]
