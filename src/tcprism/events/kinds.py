"""The kinds of events, each defined once: what it is, what it needs and how it is shown.

A family is the kinds that share one record. Ours are at the end of this module; whoever makes
records of another kind registers its family (`tcprism.events.registration`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal, ParamSpec, TypeVar

import numpy as np

from tcprism.events import _wire, wording
from tcprism.events._wire import EventKind

P = ParamSpec("P")
T = TypeVar("T")

# Precious records are read first, and all that are there. Rare ones are precious, and never so many
# that they need more than a share of the room.
Ring = Literal["busy", "precious", "rare"]

_FIRST_MADE = 128  # the numbers below are the kernel side's
KIND_NUMBERS = 256  # a byte
NO_KIND = 255  # stands for kinds that are not known here


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of event.

    `doc` says what happened. `color` has the parameters of ECMA-48's "select graphic rendition"; a
    `loud` kind has it to the end of the line. The arrow of an `incoming` kind points to this
    machine; a record's field `outgoing`, if present, decides instead. `text` returns the end of a
    line of text, after process and addresses, from the columns that its parameters name; None: the
    columns of the family, or what sinks/text_details.py makes from whole columns.

    `needs` are kinds whose hooks it needs besides its own. The hooks of an `owned` kind do not see
    which process uses the socket: other hooks must record that.
    """

    name: str
    doc: str
    color: str = ""
    loud: bool = False
    incoming: bool = False
    text: Callable[..., str] | None = None
    needs: tuple[str, ...] = ()
    owned: bool = False


@dataclass(frozen=True, slots=True)
class Family:
    """Kinds of events that share a record type, which begins with the fields of struct event.

    `ring` says how much room its hooks get; None: no hook makes it. With `payload`, payload bytes
    follow each record. `struct` is the record's name in events.h, if not the family's name.
    """

    name: str
    record: np.dtype[np.void]
    kinds: tuple[Kind, ...]
    ring: Ring | None = None
    payload: bool = False
    struct: str = ""


def record(fields: Mapping[str, str]) -> np.dtype[np.void]:
    """Return the dtype of a family's records: struct event, then fields by name and NumPy format.

    Each has a fixed size, such as "<u8" or "S16"; a text of any length is a derived column.
    """
    head = dict(_wire.EVENT.fields or {})
    formats = [np.dtype(text) for text in fields.values()]
    ends = _wire.EVENT.itemsize + np.cumsum([0, *(form.itemsize for form in formats)])
    return np.dtype(
        {
            "names": [*head, *fields],
            "formats": [*(place[0] for place in head.values()), *formats],
            "offsets": [*(place[1] for place in head.values()), *ends[:-1].tolist()],
            "itemsize": int(ends[-1]),
        }
    )


# What the registry holds, each by name; they grow as families are registered.
REGISTERED: dict[str, Family] = {}
RECORDS: dict[str, np.dtype[np.void]] = {}
BY_NAME: dict[str, Kind] = {}
NUMBERS: dict[str, int] = {}  # as records have them
FAMILY_OF_KIND: dict[str, str] = {}
_FAMILIES_OF_SIZE: dict[int, list[str]] = {}

_forget: list[Callable[[], None]] = []


def remembered(function: Callable[P, T]) -> Callable[P, T]:
    """Remember what a function returns until a family is registered: it follows from all of them.

    The parameters must be hashable and positional.
    """
    cached = cache(function)
    _forget.append(cached.cache_clear)
    return cached  # type: ignore[return-value]


def add(family: Family) -> None:
    """Add a family without columns of its own. Raises ValueError when it does not fit in."""
    _check(family)
    REGISTERED[family.name] = family
    RECORDS[family.name] = family.record
    _FAMILIES_OF_SIZE.setdefault(family.record.itemsize, []).append(family.name)
    for kind in family.kinds:
        BY_NAME[kind.name] = kind
        FAMILY_OF_KIND[kind.name] = family.name
        NUMBERS[kind.name] = _number(kind.name)
    forget()


def remove(name: str) -> None:
    """Take a family away again."""
    family = REGISTERED.pop(name)
    del RECORDS[name]
    _FAMILIES_OF_SIZE[family.record.itemsize].remove(name)
    for kind in family.kinds:
        del BY_NAME[kind.name], FAMILY_OF_KIND[kind.name], NUMBERS[kind.name]
    forget()


def forget() -> None:
    """Forget what followed from the families and columns that there were."""
    for each in _forget:
        each()


def _check(family: Family) -> None:
    if family.name in REGISTERED:
        raise ValueError(f"there is a family {family.name} already")
    if taken := sorted(BY_NAME.keys() & {kind.name for kind in family.kinds}):
        raise ValueError(f"there is a kind {taken[0]} already")
    _check_record(family.name, family.record)


def _check_record(family: str, record: np.dtype[np.void]) -> None:
    fields, header = dict(record.fields or {}), dict(_wire.EVENT.fields or {})
    if any(fields.get(name, ())[:2] != place[:2] for name, place in header.items()):
        raise ValueError(f"the record of {family} does not begin with the fields of struct event")
    if twin := family_of(record):
        raise ValueError(f"{family} has the same record as {twin}, and could not be told from it")
    for name in fields:
        if record[name].base.kind not in "uifS" or not record[name].isnative:
            raise ValueError(f"{name} must be a number or bytes, as this machine has them")
    for other, its in RECORDS.items():
        for name in fields.keys() & set(its.names or ()):
            if record[name] != its[name]:
                raise ValueError(f"{name} has another type in {other}: give it another name")


def _number(kind: str) -> int:
    if kind.upper() in EventKind.__members__:
        return EventKind[kind.upper()].value
    taken = set(NUMBERS.values())
    free = (number for number in range(_FIRST_MADE, NO_KIND) if number not in taken)
    if (number := next(free, None)) is None:
        raise ValueError("there are too many kinds of events")
    return number


def kind_name(number: int) -> str:
    """Return a kind's name; a number that is no kind becomes a name too."""
    return _names().get(number, f"unknown-{number}")


@remembered
def _names() -> dict[int, str]:
    return {number: name for name, number in NUMBERS.items()}


def numbers_of(family: str) -> list[int]:
    """Return the numbers of a family's kinds."""
    return [NUMBERS[kind.name] for kind in REGISTERED[family].kinds]


def family_of(dtype: np.dtype[np.void]) -> str | None:
    """Return the family whose records have this dtype, or None."""
    for family in _FAMILIES_OF_SIZE.get(dtype.itemsize, ()):
        if RECORDS[family] == dtype:
            return family
    return None


_CALLED = "a process called into TCP: who, which bytes, how long"
_PLAINTEXT = "a process called into a TLS library: which bytes before they were encrypted, or after"
_GREEN, _YELLOW, _BLUE, _MAGENTA, _CYAN = "32", "33", "34", "35", "36"
_RED, _BOLD_RED, _DIM_GREEN, _DIM_MAGENTA = "31", "1;31", "2;32", "2;35"
_BOLD_GREEN, _BOLD_CYAN, _DIM_CYAN = "1;32", "1;36", "2;36"

for _family in (
    Family(
        "message",
        _wire.MESSAGE,
        (
            Kind("send", _CALLED, _GREEN),
            Kind("recv", _CALLED, _CYAN, incoming=True),
        ),
        ring="busy",
        payload=True,
    ),
    Family(
        "delivery",
        _wire.DELIVERY,
        (
            Kind(
                "acked",
                "the last byte of a `send` was acknowledged, and how long that took",
                _DIM_GREEN,
                text=wording.acked,
                needs=("transmit",),
                owned=True,
            ),
        ),
        ring="busy",
    ),
    Family(
        "segment",
        _wire.SEGMENT,
        (
            Kind(
                "transmit",
                "TCP handed a segment to IP: its header, the congestion state",
                _BLUE,
                owned=True,
            ),
            Kind("probe", "the same for a probe of the peer's closed window", _YELLOW, owned=True),
            Kind(
                "receive",
                "IP handed a segment to TCP: its header, and what of it was new",
                _DIM_CYAN,
                incoming=True,
                owned=True,
            ),
        ),
        ring="busy",
        payload=True,
    ),
    Family(
        "loss",
        _wire.LOSS,
        (
            Kind(
                "retransmit",
                "a segment was retransmitted: why, and which `send` wrote its bytes",
                _BOLD_RED,
                loud=True,
                owned=True,
            ),
            Kind(
                "undo",
                "the kernel found that retransmissions were spurious",
                _YELLOW,
                text=wording.undo,
                owned=True,
            ),
            Kind(
                "drop",
                "this host dropped an outgoing or incoming segment: lost here, not out there",
                _BOLD_RED,
                loud=True,
                text=wording.drop,
                owned=True,
            ),
        ),
        ring="rare",
    ),
    Family(
        "connection",
        _wire.CONNECTION_EVENT,
        (
            Kind(
                "connect",
                "a connection was established or failed, and how long that took",
                _MAGENTA,
                text=wording.connect,
            ),
            Kind(
                "accept",
                "a listener's connection was established",
                _MAGENTA,
                incoming=True,
                text=wording.accept,
            ),
            Kind(
                "close",
                "a connection ended: how, and the kernel's totals",
                _MAGENTA,
                text=wording.close,
                needs=("reset",),  # they tell how it ended
            ),
            Kind(
                "reset",
                "a reset was sent or received",
                _RED,
                text=wording.reset,
                needs=("close",),
            ),
            Kind("state", "the TCP state changed", _DIM_MAGENTA, text=wording.state),
        ),
        ring="precious",
        struct="connection_event",
    ),
    Family(
        "tls",
        _wire.TLS_MESSAGE,
        (
            Kind("tls_send", _PLAINTEXT, _BOLD_GREEN),
            Kind("tls_recv", _PLAINTEXT, _BOLD_CYAN, incoming=True),
        ),
        ring="busy",
        payload=True,
        struct="tls_message",
    ),
    Family(
        "translation",
        _wire.TRANSLATION,
        (
            Kind(
                "translate",
                "NAT on this host gives the packets of a connection other addresses or ports than"
                " its socket has: which, once",
                _YELLOW,
                text=wording.translate,
                owned=True,
            ),
        ),
        ring="rare",
    ),
    Family(
        "snapshot",
        _wire.SNAPSHOT,
        (Kind("snapshot", "a connection as it stands", text=wording.snapshot),),
    ),
):
    add(_family)

# What hooks make, in the order of their numbers; of the others, snapshots are asked for.
FAMILIES = {
    family.name: tuple(kind.name for kind in family.kinds)
    for family in REGISTERED.values()
    if family.ring
}
KINDS = tuple(kind for kinds in FAMILIES.values() for kind in kinds)
SENDS = (EventKind.SEND, EventKind.TLS_SEND)
TLS_KINDS = FAMILIES["tls"]
SEGMENT_KINDS = ("transmit", "probe", "receive", "retransmit")  # all that are on the wire
NAMED_KINDS = (*TLS_KINDS, "receive", "translate")  # they are traced only where a user names them
