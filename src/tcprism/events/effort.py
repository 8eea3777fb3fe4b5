"""The family of what `tcprism serve` does to keep its own cost and memory within bounds."""

from __future__ import annotations

import numpy as np

from tcprism.events.column import derived_column, field_column
from tcprism.events.kinds import NUMBERS, RECORDS, Family, Kind, record
from tcprism.events.part import Part
from tcprism.events.registration import register


def text(effort: str | None, of_budget: int) -> str:
    """Return what a line of text says of a change."""
    return f"now recording {effort}, after {of_budget} % of the budget"


def memory_text(let_go: str | None, of_budget: int) -> str:
    """Return what a line of text says of what was let go of."""
    return f"let go of {let_go}, at {of_budget} % of --max-memory"


register(
    Family(
        "effort",
        record({"of_budget": "<u4"}),
        (
            Kind("effort", "tcprism records less than before, or more", color="33", text=text),
            Kind(
                "memory",
                "tcprism let go of something that it kept, for lack of memory",
                color="33",
                text=memory_text,
            ),
        ),
    ),
    (
        derived_column("effort", ("effort",), "string", "what is recorded from now on"),
        derived_column("let_go", ("effort",), "string", "what was let go of, and how much of it"),
        field_column(
            "of_budget",
            ("effort",),
            "integer",
            "what tcprism cost in the seconds before (`effort`) or what memory it had (`memory`),"
            " percent of what it may",
        ),
    ),
)


def effort_part(ts_ns: int, effort: str, of_budget: int) -> Part:
    """Return the event that says what is recorded from a moment of CLOCK_MONOTONIC on."""
    return _part("effort", ts_ns, of_budget, effort=effort)


def memory_part(ts_ns: int, let_go: str, of_budget: int) -> Part:
    """Return the event that says what was let go of at a moment of CLOCK_MONOTONIC."""
    return _part("memory", ts_ns, of_budget, let_go=let_go)


def _part(kind: str, ts_ns: int, of_budget: int, **texts: str) -> Part:
    rows = np.zeros(1, RECORDS["effort"])
    rows["kind"] = NUMBERS[kind]
    rows["ts_ns"] = ts_ns
    rows["of_budget"] = min(of_budget, 2**32 - 1)
    named = {"effort": "", "let_go": "", **texts}
    return Part(
        rows,
        derived={
            name: np.ma.MaskedArray(np.array([said], object), name not in texts)
            for name, said in named.items()
        },
    )
