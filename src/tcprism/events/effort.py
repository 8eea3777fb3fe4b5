"""The family of changes in how much is recorded, to which `tcprism serve` keeps its cost down."""

from __future__ import annotations

import numpy as np

from tcprism.events.column import derived_column, field_column
from tcprism.events.kinds import NUMBERS, RECORDS, Family, Kind, record
from tcprism.events.part import Part
from tcprism.events.registration import register


def text(effort: str | None, of_budget: int) -> str:
    """Return what a line of text says of a change."""
    return f"now recording {effort}, after {of_budget} % of the budget"


register(
    Family(
        "effort",
        record({"of_budget": "<u4"}),
        (Kind("effort", "tcprism records less than before, or more", color="33", text=text),),
    ),
    (
        derived_column("effort", ("effort",), "string", "what is recorded from now on"),
        field_column(
            "of_budget",
            ("effort",),
            "integer",
            "what tcprism cost in the seconds before, percent of its budget",
        ),
    ),
)


def effort_part(ts_ns: int, effort: str, of_budget: int) -> Part:
    """Return the event that says what is recorded from a moment of CLOCK_MONOTONIC on."""
    rows = np.zeros(1, RECORDS["effort"])
    rows["kind"] = NUMBERS["effort"]
    rows["ts_ns"] = ts_ns
    rows["of_budget"] = min(of_budget, 2**32 - 1)
    return Part(rows, derived={"effort": np.ma.MaskedArray(np.array([effort], object), False)})
