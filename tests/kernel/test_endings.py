"""How connections ended, row by row of the table in docs/connections.md.

The truth: what the wire carried, and what the kernel counted.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tcprism.events.wording import how_it_ended, why_not_established
from tests.support.capture import Packet
from tests.support.tracer import Event, Tracer, tracing
from tests.support.wire import Wire, deliver, wired

from . import endings, endings_from_outside
from .ways import WAYS, CannotRunHere, await_over

pytestmark = pytest.mark.native  # in a machine it takes minutes

DOCS = Path(__file__).parents[2] / "docs/connections.md"
FIRST_PORT = 5500
OTHER = {"client": "server", "server": "client"}


@dataclass(frozen=True)
class Row:
    """What the table says of a way."""

    way: str
    this: str
    other: str
    counter: str


def rows() -> Iterator[Row]:
    table = DOCS.read_text().split("## Every way to end")[1].split("\n## ")[0]
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and cells[0] != "what happens" and set(cells[0]) != {"-"}:
            yield Row(cells[0], *(cell.strip("`") for cell in cells[1:4]))


ROWS = [row for row in rows() if "not tested" not in row.counter]


@dataclass
class Played:
    """What came of a way."""

    port: int
    why_not: str = ""
    packets: list[tuple[Packet, bool]] = field(default_factory=list)  # and whether they got through
    counted: dict[str, int] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    resets: list[Event] = field(default_factory=list)

    def ended(self, netns: int) -> str:
        """Return how the connection ended at one end, in the words of the table."""
        ends = [event for event in self.events if event["netns"] == netns]
        return ", ".join(map(words, ends)) or "-"

    def lost_on_the_way(self) -> list[Packet]:
        """Return what one end sent and the other did not get: a question, or the answer to it."""
        return [packet for packet, through in self.packets if not through]

    def sent(self, flag: str, to_server: bool) -> bool:
        """Tell whether an end has sent a packet with a flag."""
        return any(
            flag in packet.flags and (packet.destination_port == self.port) == to_server
            for packet, _ in self.packets
        )


def is_end(event: Event) -> bool:
    """Tell whether a connection ends, or an attempt to make one."""
    return bool(
        event["kind"] == "close" or (event["kind"], event["new_state"]) == ("connect", "CLOSE")
    )


def words(event: Event) -> str:
    if event["kind"] == "connect":
        return why_not_established(event["error"])
    return how_it_ended(event["ending"], event["error"])


def play(wire: Wire, name: str, port: int) -> Played:
    way, played = WAYS[name], Played(port)
    netns = getattr(wire, way.this)
    before = netns.extended_counters()
    passed, lost = len(wire.passed), len(wire.lost)
    try:
        way.play(wire, port)
    except CannotRunHere as error:
        played.why_not = str(error)
    wire.rule = deliver
    for end in OTHER:
        await_over(getattr(wire, end), port)
    after = netns.extended_counters()
    played.counted = {counter: after[counter] - before[counter] for counter in after}
    played.packets = [(packet, True) for packet in wire.passed[passed:]]
    played.packets += [(packet, False) for packet in wire.lost[lost:]]
    return played


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, int], dict[str, Played]]:
    """All ways under one trace, and the numbers of both namespaces."""
    numbers, played, tracer = play_all(tmp_path_factory.mktemp("endings") / "events")
    for one in played.values():
        mine = [e for e in tracer.events if one.port in (e["local_port"], e["remote_port"])]
        one.events = [event for event in mine if is_end(event)]
        one.resets = [event for event in mine if event["kind"] == "reset"]
    return numbers, played


def play_all(output: Path) -> tuple[dict[str, int], dict[str, Played], Tracer]:
    with wired() as wire:
        arguments = ("--kinds", "connect,close,reset", "--netns", wire.client.path,
                     "--netns", wire.server.path)  # fmt: skip
        with tracing(output, *arguments) as tracer:
            played = {
                row.way: play(wire, row.way, FIRST_PORT + number) for number, row in enumerate(ROWS)
            }
        numbers = {end: getattr(wire, end).inode for end in OTHER}
    return numbers, played, tracer


def test_each_row_is_played() -> None:
    assert [row.way for row in ROWS] == list(WAYS)
    assert endings
    assert endings_from_outside


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.way)
def test_row(ends: tuple[dict[str, int], dict[str, Played]], row: Row) -> None:
    numbers, all_played = ends
    played, this = all_played[row.way], WAYS[row.way].this
    if played.why_not:
        pytest.skip(played.why_not)
    told = {end: played.ended(numbers[end]) for end in OTHER}
    assert (told[this], told[OTHER[this]]) == (row.this, row.other)
    if row.counter:
        assert played.counted[row.counter] >= 1
    for end, ended in told.items():
        check_by_the_wire(played, ended, to_server=end == "client")


def check_by_the_wire(played: Played, ended: str, to_server: bool) -> None:
    """A RST where one is said to have left or come, a FIN where one is, silence for a timeout."""
    if ended == "reset sent":
        assert played.sent("RST", to_server)
    if ended == "reset received":
        assert played.sent("RST", not to_server)
    if ended == "fin":
        assert played.sent("FIN", to_server)
    if ended in ("timeout", "ETIMEDOUT"):
        assert len(played.lost_on_the_way()) > 1
    if ended == "aborted":
        assert not played.sent("RST|ACK", to_server)  # a socket's own; without one there is no ACK


def test_resets_are_those_of_the_wire(ends: tuple[dict[str, int], dict[str, Played]]) -> None:
    """What one end is said to have received, the other has sent, and what is sent was seen."""
    numbers, all_played = ends
    assert any(played.resets for played in all_played.values())
    for way, played in all_played.items():
        for event in played.resets:
            by_client = (event["netns"] == numbers["client"]) == event["sent"]
            assert played.sent("RST", to_server=by_client), (way, event)
