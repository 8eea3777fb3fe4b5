"""What the metadata of a recording may say: types and bounds, checked where it is read.

Fields that a later tcprism has added are left out. Imported when a recording is read: msgspec comes
with an extra.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import msgspec

from tcprism.errors import RecordingError
from tcprism.events.escape import escape_text
from tcprism.events.ledger import Entry

_LONGEST_TEXT = 1 << 14  # the path of a cgroup (PATH_MAX), each byte of it escaped
_LARGEST = (1 << 63) - 1

# With a moment of CLOCK_MONOTONIC the sum is a time that has a date.
_LATEST = (1 << 62) - 1


class Text(str):
    """A text, escaped: whatever a file says, it is printable ASCII."""


Count = Annotated[int, msgspec.Meta(ge=0, le=_LARGEST)]
Moment = Annotated[int, msgspec.Meta(ge=0, le=_LATEST)]
Offset = Annotated[int, msgspec.Meta(ge=-_LATEST, le=_LATEST)]
Name = Annotated[str, msgspec.Meta(pattern="^[!-~]{1,64}$")]
Texts = Annotated[tuple[Text, ...], msgspec.Meta(max_length=1 << 16)]


class OwnerNote(msgspec.Struct):
    """An owner, as events.context.Owner has it."""

    cgroup: Text | None = None
    container_id: Text | None = None
    pod_uid: Text | None = None
    unit: Text | None = None
    container: Text | None = None
    namespace: Text | None = None
    workload: Text | None = None


class NamesNote(msgspec.Struct):
    """New names by the numbers that they explain."""

    owner: dict[int, OwnerNote] = {}
    drop_reason: dict[int, Text | None] = {}
    reset_reason: dict[int, Text | None] = {}
    interface: dict[int, Text | None] = {}


class GapNote(msgspec.Struct):
    """Events of a kind that got lost."""

    since_ns: Moment
    until_ns: Moment
    kind: Text
    lost: Count


_COUNTS = [(name, Count, 0) for name in Entry.__dataclass_fields__ if name != "kind"]
EntryNote = msgspec.defstruct("EntryNote", [("kind", Text), *_COUNTS], namespace={"Text": Text})


class LedgerNote(msgspec.Struct):
    """The account so far; the first recordings have one number of one stage, `unjoined`."""

    entries: Annotated[tuple[EntryNote, ...], msgspec.Meta(max_length=256)]  # type: ignore[valid-type]
    unremembered: Count = 0
    counts: dict[str, Count] = {}
    remarks: Annotated[tuple[Text, ...], msgspec.Meta(max_length=64)] = ()
    unjoined: Count | None = None


class Notes(msgspec.Struct):
    """What comes with a batch."""

    clock_offset_ns: Offset | None = None
    names: NamesNote | None = None
    ledger: LedgerNote | None = None
    gaps: tuple[GapNote, ...] = ()
    end: bool = False


class Version(msgspec.Struct):
    """What tells whether the rest can be understood."""

    version: int


class FactsNote(msgspec.Struct):
    """What was true when the recording began."""

    kinds: Texts
    payload: Count = 0
    filters: dict[Name, Texts] = {}
    hooks: dict[Name, Text] = {}
    host: Text = Text()
    kernel: Text = Text()
    architecture: Text = Text()
    started: Text = Text()
    tcprism: Text = Text()


Note = TypeVar("Note")


def decode(data: bytes, kind: type[Note]) -> Note:
    """Return metadata as what it should be. Raises RecordingError."""
    try:
        return msgspec.json.decode(data, type=kind, dec_hook=_to_text)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RecordingError(f"its notes are damaged ({error})") from error
    except RecursionError as error:
        raise RecordingError("its notes are damaged (they are nested too deeply)") from error


def _to_text(kind: type, value: Any) -> Any:
    if not isinstance(value, str) or len(value) > _LONGEST_TEXT:
        raise ValueError(f"expected a text of at most {_LONGEST_TEXT} characters")
    return kind(escape_text(value))
