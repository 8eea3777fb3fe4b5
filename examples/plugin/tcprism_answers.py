"""Events of a kind of one's own: an `answer` for each status line of HTTP/1 that was received.

Registered here, answers are in every format and in recordings; the stage makes them.
"""

import re

import numpy as np

from tcprism import Batch
from tcprism.events import Part
from tcprism.events.column import derived_column, field_column
from tcprism.events.escape import escape
from tcprism.events.kinds import NUMBERS, Family, Kind, record
from tcprism.events.ledger import Account, Entry
from tcprism.events.registration import register, rows_from
from tcprism.stages import StatefulStage

STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3}) ([^\r\n]*)")


def text(code: int, phrase: str) -> str:
    """Return what a line of text says of an answer: the parameters are columns."""
    return f"{code} {phrase}"


register(
    Family(
        "answer",
        record({"code": "<u2"}),
        (Kind("answer", "an answer of HTTP/1 began", color="36", incoming=True, text=text),),
    ),
    (
        field_column("code", ("answer",), "integer", "the status code"),
        derived_column("phrase", ("answer",), "string", "the reason phrase"),
    ),
)


class Answers(StatefulStage):
    """Adds an answer behind each message that begins with a status line."""

    def __init__(self) -> None:
        self._made = 0

    def __call__(self, batch: Batch) -> Batch:
        """Return the events with the answers among them."""
        messages = [part for part in batch.parts if part.family == "message"]
        answers = [answer for part in messages if (answer := self._answers(part))]
        return Batch((*batch.parts, *answers), batch.clock_offset_ns)

    def _answers(self, part: Part) -> Part | None:
        received = part.take(part.rows["kind"] == NUMBERS["recv"])
        found = list(map(STATUS_LINE.match, received.payloads()))
        lines = [match for match in found if match]
        if not lines:
            return None
        rows = rows_from(received.rows[[match is not None for match in found]], "answer")
        rows["code"] = [int(match[1]) for match in lines]
        self._made += len(rows)
        phrases = np.ma.MaskedArray(np.array([escape(match[2]) for match in lines], object), False)
        return Part(rows, derived={"phrase": phrases}, context=part.context)

    def account(self) -> Account:
        """Return how many were made, for the ledger."""
        return Account((Entry.of_stage("answer", self._made),))
