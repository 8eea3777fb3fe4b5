"""What the filter of `top` finds: in connections and in events, by what people mean."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tcprism.diagnosis.groups import GROUPINGS, group, listening
from tcprism.diagnosis.search import Group, Search
from tcprism.diagnosis.table import Table, advance
from tcprism.events import Part
from tcprism.events._wire import Cause, EventKind
from tcprism.events.names import STATES

from .records import connections, losses, snapshots
from .session import look

ENDS = {"local_ip": "192.0.2.10", "local_port": 45_678, "remote_port": 443}
ABROAD = {"remote_ip": "2001:db8:ab::1", "family": 6, "netns": 5}
CURL = {"pid": 812, "comm": b"curl", "inode": 1, "remote_ip": "198.51.100.7", "netns": 4, **ENDS}
AB = {"pid": 813, "comm": b"ab", "inode": 2, "remote_ip": "198.51.100.8", "netns": 4, **ENDS}
NOBODY = {"inode": 3, **ENDS, **ABROAD, "remote_port": 8443}
SERVER = {"pid": 90, "comm": b"my server", "inode": 4, "local_ip": "0.0.0.0", "local_port": 45_678}
STATE = {"curl": "ESTABLISHED", "ab": "ESTABLISHED", "nobody": "CLOSE_WAIT", "server": "LISTEN"}


@pytest.fixture
def table() -> Table:
    rows = zip((CURL, AB, NOBODY, {**SERVER, "netns": 5}), STATE.values(), strict=True)
    return advance(None, snapshots(*({**row, "state": STATES.index(state)} for row, state in rows)))


def found(table: Table, search: Search | str) -> set[str]:
    """Return the names of the connections that a search finds."""
    search = Search(search) if isinstance(search, str) else search
    return {name for name, hit in zip(STATE, search.connections(table), strict=True) if hit}


EVERYTHING = set(STATE)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", EVERYTHING),
        ("ab", {"ab", "nobody"}),  # the owner, an address; not ESTABLISHED
        ("establ", set()),
        ("state:establ", {"curl", "ab"}),
        ("STATE:close_wait", {"nobody"}),
        ("curl", {"curl"}),
        ("198.51", {"curl", "ab"}),
        ("198.51 443 ab", {"ab"}),
        ("443", {"curl", "ab", "nobody"}),
        ("port:443", {"curl", "ab"}),
        ("port:45678", EVERYTHING),
        ("port:", EVERYTHING),
        ("pid:81", set()),
        ("pid:812", {"curl"}),
        ("owner:[81", {"curl", "ab"}),
        ("pid:-", {"nobody"}),
        ("owner:-", {"nobody"}),
        ("netns:5", {"nobody", "server"}),
        ("host:2001:db8:ab", {"nobody"}),
        ("2001:db8", {"nobody"}),
        ('"my server"', {"server"}),
        ('comm:"my ser', {"server"}),
        ("local:0.0.0.0", {"server"}),
        ("cause:rto", set()),  # connections have none
        ("container:-", EVERYTHING),
        ("\x1b[ :: : \" ' %", set()),
    ],
)
def test_connections(table: Table, text: str, names: set[str]) -> None:
    assert found(table, text) == names


def test_what_limits_a_connection() -> None:
    session = advance(advance(None, look(0)), look(1))
    by_inode = {"loss": [False, False, False, True], '"peer window"': [False, False, True, False]}
    for label, hits in by_inode.items():
        assert Search(f"limit:{label}").connections(session).tolist() == hits
        assert not Search(label).connections(session).any()


@pytest.mark.parametrize("grouping", GROUPINGS)
def test_each_connection_is_in_the_group_that_counts_it(table: Table, grouping: str) -> None:
    """Those without a name too."""
    groups = group(table, grouping, np.arange(len(table)))
    sizes = []
    for label in groups.labels:
        search = Search(group=Group(grouping, label, listening(table)))
        sizes.append(len(found(table, search)))
    assert sizes == groups.members.tolist()
    assert sum(sizes) == len(table)


def test_a_group_and_words(table: Table) -> None:
    unnamed = Search(group=Group("container", "-", listening(table)))
    assert found(table, unnamed) == EVERYTHING
    assert found(table, replace(unnamed, text="curl")) == {"curl"}
    assert (str(unnamed), bool(unnamed)) == ("container -", True)
    assert not Search("  ")


def test_the_service_port_is_the_listeners(table: Table) -> None:
    """45678 is listened on in namespace 5; in the other the lower port is the guess."""
    groups = group(table, "port", np.arange(len(table)))
    assert dict(zip(groups.labels, groups.members.tolist(), strict=True)) == {"443": 2, "45678": 2}


def events() -> list[Part]:
    curl, ab = ({k: v for k, v in row.items() if k != "inode"} for row in (CURL, AB))
    return [
        losses({**curl, "cause": Cause.TLP}, {**ab, "cause": Cause.RTO}),
        connections({**curl, "kind": EventKind.CLOSE}),
    ]


@pytest.mark.parametrize(
    ("text", "hits"),
    [
        ("curl", [True, False, True]),
        ("retransmit", [True, True, False]),
        ("kind:close", [False, False, True]),
        ("cause:tlp", [True, False, False]),
        ("cause:-", [False, False, False]),
        ("limit:loss", [False, False, False]),
        ("port:443 ab", [False, True, False]),
    ],
)
def test_events(text: str, hits: list[bool]) -> None:
    assert [hit for part in events() for hit in Search(text).events(part).tolist()] == hits
