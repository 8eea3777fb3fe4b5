"""How columns share a line."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tcprism.tui.grid import GridColumn
from tcprism.tui.layout import fitted, shortened

OWNER = GridColumn("owner", "OWNER", 18, least=12, most=36, tail="[")
REMOTE = GridColumn("remote", "REMOTE", 21, least=10, most=47, tail=":")
STATE = GridColumn("state", "STATE", 11)
TREND = GridColumn("trend", "TREND", 10, rank=3)
ALL = (OWNER, REMOTE, STATE, TREND)


def names(room: int, needs: tuple[int, ...] = (18, 21, 11, 10), keep: str = "") -> dict[str, int]:
    return {ALL[place].name: width for place, width in fitted(ALL, room, needs, keep)}


def test_what_has_room_to_give_is_narrowed_before_anything_is_left_out() -> None:
    assert names(63) == {"owner": 18, "remote": 21, "state": 11, "trend": 10}
    assert names(60) == {"owner": 18, "remote": 18, "state": 11, "trend": 10}
    assert names(46) == {"owner": 12, "remote": 10, "state": 11, "trend": 10}
    assert names(45) == {"owner": 16, "remote": 16, "state": 11}
    assert names(45, keep="trend").keys() == {"owner", "remote", "trend"}


def test_room_goes_to_texts_that_need_it() -> None:
    assert names(200, (50, 30, 11, 10)) == {"owner": 36, "remote": 30, "state": 11, "trend": 10}


def test_empty_room_is_given_before_texts_are_cut() -> None:
    assert names(55, (12, 21, 11, 10)) == {"owner": 12, "remote": 19, "state": 11, "trend": 10}


@given(st.integers(1, 200), st.tuples(*[st.integers(0, 99)] * 4), st.sampled_from(["", "trend"]))
def test_a_line_is_never_too_long_and_never_empty(
    room: int, needs: tuple[int, int, int, int], keep: str
) -> None:
    found = fitted(ALL, room, needs, keep)
    assert found
    if len(found) > 1:
        assert sum(width + 1 for _, width in found) - 1 <= room
    assert [place for place, _ in found] == sorted(place for place, _ in found)


def test_pids_and_ports_stay() -> None:
    assert shortened("postgres[4312]+2", 13, "[") == "post…[4312]+2"
    assert shortened("203.0.113.9:51000", 12, ":") == "203.0…:51000"
    assert shortened("203.0.113.9:51000", 6, ":") == ":51000"
    assert shortened("203.0.113.9:51000", 5, ":") == "203.…"
    assert shortened("no tail here", 5, "[") == "no t…"
    assert shortened("short", 5, "[") == "short"


@given(st.text("ab[:]1", max_size=30), st.integers(1, 30), st.sampled_from(["", "[", ":"]))
def test_a_shortened_text_fits(text: str, width: int, tail: str) -> None:
    assert len(shortened(text, width, tail)) <= width
