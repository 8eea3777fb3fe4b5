"""Views: what the page asks for, as JSON. Moments are nanoseconds since the first event."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tcprism.errors import UsageError
from tcprism.web import finding, vocabulary
from tcprism.web.expressions import expression_of
from tcprism.web.heatmap import heatmap
from tcprism.web.marks import curves, marks
from tcprism.web.pairs import pairs
from tcprism.web.requests import state_number
from tcprism.web.store import Store
from tcprism.web.told import explained

WINDOW_MAX = 500  # rows of one answer
NUMBER_MAX = 10**18
HURT_MAX = 6  # rows of each list in the overview
_EXPLAINED_MAX = 32
AROUND = 0.1  # of a request's time is shown before and after it
AROUND_LEAST = 20_000  # nanoseconds

Query = Mapping[str, str]
Answer = dict[str, Any]
Found = TypeVar("Found")


class NotFound(UsageError):
    """There is no such request or connection."""


class Views:
    """Answers from a store. `name` is what is shown: a file's name, or this machine's."""

    def __init__(self, store: Store, name: str, live: bool) -> None:
        self.store = store
        self._name = name
        self._live = live
        self._found: dict[tuple[Any, ...], Any] = {}
        self._answers = {
            "summary": self.summary,
            "requests": self.requests,
            "heatmap": self.heatmap,
            "request": self.request,
            "connections": self.connections,
            "connection": self.connection,
            "vocabulary": self.vocabulary,
            "overview": self.overview,
            "map": self.map,
        }
        self._explained: dict[int | None, tuple[int, float, Answer]] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """What can be asked for."""
        return (*self._answers, "explain")

    def answer(self, name: str, query: Query) -> Answer:
        """Return an answer. Raises UsageError for what makes no sense, NotFound."""
        if name == "explain":
            return self.explain(query)
        if name in ("requests", "heatmap") and (
            expression := expression_of(query.get("filter", ""))
        ):
            with self.store.lock:
                evaluate = self.store.requests.evaluation(expression)
            evaluate()  # which takes long: what is left to do under the lock is little
        with self.store.lock:
            return self._answers[name](query)

    def summary(self, _query: Query) -> Answer:
        """Return what there is, and the account of it."""
        store, facts = self.store, self.store.facts
        return {
            "name": self._name,
            "live": self._live,
            "ended": store.ended,
            "change": store.change,
            "origin_ms": (store.first_ns + store.clock_offset_ns) / 1e6,
            "last": self._since_first(store.last_ns),
            "events": store.events,
            "requests": len(store.requests),
            "connections": len(store.connections),
            "host": facts.host if facts else "",
            "kernel": facts.kernel if facts else "",
            "kinds": facts.kinds if facts else (),
            "hooks": dict(facts.hooks) if facts else {},
            "lost": store.ledger.lost,
            "ledger": store.ledger.lines() if store.ledger.entries else [],
            "ledger_table": store.ledger.whole() if store.ledger.entries else [],
            "trouble": [*store.trouble, *store.dropped().remarks],
            "forgotten": store.forgotten,
            "cost": store.cost and store.cost._asdict(),
        }

    def overview(self, _query: Query) -> Answer:
        """Return what happened over time, and who is hurt most."""
        store = self.store
        took, causes = store.requests.table["took"], store.connections.table["causes"]
        waits = store.requests.table["state"] == state_number("pending")
        slow = store.requests.rows(_largest(np.where(waits, -1, took)))
        pending = store.requests.rows(_largest(np.where(waits, took, -1)))
        return {
            "series": store.overview.series(store.first_ns),
            "slowest": [self._request_row(row) for row in slow],
            # Until events end, a request is a row only once it has ended.
            "pending": [self._request_row(row) for row in pending] if store.ended else None,
            "repeated": [
                self._connection_row(number) for number in _largest(causes.sum(axis=1) - 1)
            ],
        }

    def vocabulary(self, query: Query) -> Answer:
        """Return what may be written in the filter of requests, or of connections."""
        if query.get("of") == "connections":
            return vocabulary.of_connections(self.store.connections)
        return vocabulary.of_requests(self.store.requests, self.store.connections)

    def map(self, _query: Query) -> Answer:
        """Return who talks to whom."""
        return pairs(self.store.connections)

    def explain(self, query: Query) -> Answer:
        """Return what can be proven of all connections, or of the one that `n` names.

        That may take long, so nothing is locked meanwhile, and while events come it is worked out
        anew only after ten times as long.
        """
        store, number = self.store, _maybe_integer(query, "n")
        with store.lock:
            place = None if number is None else self._connection(query)
            kept = store.kept(place)
        change, due, answer = self._explained.get(number, (-1, 0.0, {}))
        if change == store.change or time.monotonic() < due:
            return answer
        change, began = store.change, time.monotonic()
        answer = explained(store, kept)
        ended = time.monotonic()
        if len(self._explained) > _EXPLAINED_MAX:
            self._explained.clear()
        self._explained[number] = change, ended + 10 * (ended - began), answer
        return answer

    def requests(self, query: Query) -> Answer:
        """Return a window of the requests that a filter chooses, in an order."""
        store = self.store
        order, falling = _order(query, finding.REQUEST_ORDERS, "-start")
        text, ranges = query.get("filter", ""), self._ranges(query)

        def find() -> NDArray[np.intp]:
            found = self._chosen(text, ranges)
            return finding.ordered(finding.request_keys(store.requests, order), found, falling)

        numbers = self._remembered(("requests", text, *ranges.values(), order, falling), find)
        shown = _window(query, numbers)
        rows = [self._request_row(row) for row in store.requests.rows(shown.tolist())]
        return {"total": len(store.requests), "found": len(numbers), "rows": rows}

    def heatmap(self, query: Query) -> Answer:
        """Return how many of the requests that a filter chooses began when and took how long.

        A choice of times and durations does not count: it is drawn on the heatmap.
        """
        text = query.get("filter", "")
        return self._remembered(
            ("heatmap", text),
            lambda: heatmap(self.store.requests, self._chosen(text, {}), self.store.first_ns),
        )

    def _chosen(self, text: str, ranges: Mapping[str, finding.Range]) -> NDArray[np.intp]:
        return finding.requests(self.store.requests, self.store.connections, text, ranges)

    def _ranges(self, query: Query) -> dict[str, finding.Range]:
        since, until = (self._moment(query, name) for name in ("since", "until"))
        least, most = (_maybe_integer(query, name) for name in ("took_least", "took_most"))
        if least is None and most is not None:
            least = 0  # unknown is -1
        return {"start": finding.Range(since, until), "took": finding.Range(least, most)}

    def request(self, query: Query) -> Answer:
        """Return a request, and the marks of its connection while it lasted."""
        store = self.store
        gone = store.requests.forgotten
        number = _number(query, "n", gone + len(store.requests)) - gone
        if number < 0:
            raise NotFound(f"request {number + gone} was forgotten for lack of memory")
        (row,) = store.requests.rows([number])
        begun, done = row["start"], max(row["start"] + (row["took"] or 0), row["end"])
        before = max(AROUND_LEAST, round(AROUND * (done - begun)))
        since = self._moment(query, "since")
        until = self._moment(query, "until")
        since = begun - before if since is None else since
        until = done + before if until is None else until
        answer = {"request": self._request_row(row), "connection": None}
        if row["connection"] is not None:
            record = store.requests.record(number)
            answer |= self._axis(row["connection"], since, until, record)
        return answer

    def connections(self, query: Query) -> Answer:
        """Return a window of the connections that a filter chooses, in an order."""
        store = self.store
        text = query.get("filter", "")
        order, falling = _order(query, finding.CONNECTION_ORDERS, "-first")

        def find() -> NDArray[np.intp]:
            found = finding.connections(store.connections, text)
            return finding.ordered(
                finding.connection_keys(store.connections, order), found, falling
            )

        numbers = self._remembered(("connections", text, order, falling), find)
        rows = [self._connection_row(number) for number in _window(query, numbers).tolist()]
        return {"total": len(store.connections), "found": len(numbers), "rows": rows}

    def connection(self, query: Query) -> Answer:
        """Return a connection, and its marks between two moments, or from its first to its last."""
        number = self._connection(query)
        since, until = (self._moment(query, name) for name in ("since", "until"))
        table = self.store.connections.table
        first, last = int(table["first_ns"][number]), int(table["last_ns"][number])
        edge = max(AROUND_LEAST, (last - first) // 50)
        return self._axis(
            number,
            first - edge if since is None else since,
            last + edge if until is None else until,
        )

    def _axis(self, number: int, since: int, until: int, request: np.void | None = None) -> Answer:
        """Return all that is drawn on the time axis of a connection."""
        store = self.store
        client = store.connections.client_side(number)
        events = list(store.of(number))
        found, more = marks(events, client, since, until, request)
        for mark in found:
            mark["t"] = self._since_first(mark["t"])
        lines = curves(events, client, since, until)
        for curve in (curve for sides in lines.values() for curve in sides):
            for point in curve:
                point[0] = self._since_first(point[0])
        table = store.requests.table
        inside = np.flatnonzero(
            (table["connection"] == number) & (table["start"] <= until) & (table["end"] >= since)
        )
        rows = store.requests.rows(inside[:WINDOW_MAX].tolist())
        return {
            "connection": self._connection_row(number),
            "since": self._since_first(since),
            "until": self._since_first(until),
            "marks": found,
            "left_out": more,
            "curves": lines,
            "requests": [self._request_row(row) for row in rows],
            "forgotten": store.forgotten,
        }

    def _connection(self, query: Query) -> int:
        """Return the place of the connection that `n` names."""
        number = _integer(query.get("n", ""), "n")
        place = self.store.connections.place(number)
        if place is None:
            raise NotFound(f"n: there is no connection {number}, or it was forgotten")
        return place

    def _remembered(self, key: tuple[Any, ...], find: Callable[[], Found]) -> Found:
        """Return what was found before, if nothing has come since; scrolling asks many times."""
        store = self.store
        key = ((store.events, store.requests.forgotten + len(store.requests)), *key)
        if key not in self._found:
            if len(self._found) >= 8 or any(one[0] != key[0] for one in self._found):
                self._found.clear()
            self._found[key] = find()
        found: Found = self._found[key]
        return found

    def _request_row(self, row: dict[str, Any]) -> dict[str, Any]:
        if row["connection"] is not None:
            numbers = self.store.connections.table["number"]
            row = row | {"connection": int(numbers[row["connection"]])}
        return row | {name: self._since_first(row[name]) for name in ("start", "end")}

    def _connection_row(self, number: int) -> dict[str, Any]:
        row = self.store.connections.row(number)
        return row | {name: self._since_first(row[name]) for name in ("first", "last")}

    def _since_first(self, moment: int) -> int:
        """Return a moment as JavaScript can have it: its numbers are exact up to 2 ** 53."""
        return moment - self.store.first_ns

    def _moment(self, query: Query, name: str) -> int | None:
        moment = _maybe_integer(query, name)
        return None if moment is None else moment + self.store.first_ns


def _largest(values: NDArray[np.int64]) -> list[int]:
    """Return the places of the largest values that are not negative."""
    places = np.argsort(-values, kind="stable")[:HURT_MAX]
    return [place for place in places.tolist() if values[place] >= 0]


def _integer(text: str, name: str) -> int:
    digits = text.removeprefix("-")
    if not (
        digits.isascii()
        and digits.isdecimal()
        and int(digits[:20]) < NUMBER_MAX
        and len(digits) < 20
    ):
        raise UsageError(f"{name}: {text[:40]!r} is not a whole number")
    return int(text)


def _maybe_integer(query: Query, name: str) -> int | None:
    text = query.get(name, "")
    return _integer(text, name) if text else None


def _number(query: Query, name: str, count: int) -> int:
    number = _integer(query.get(name, ""), name)
    if not 0 <= number < count:
        raise NotFound(f"{name}: there is no number {number}")
    return number


def _order(query: Query, known: tuple[str, ...], usual: str) -> tuple[str, bool]:
    """Return what to sort by, and whether the largest comes first, as in "-took"."""
    text = query.get("sort", "") or usual
    name = text.removeprefix("-")
    if name not in known:
        raise UsageError(f"sort: {name[:40]!r} is not one of {', '.join(known)}")
    return name, text.startswith("-")


def _window(query: Query, numbers: NDArray[np.intp]) -> NDArray[np.intp]:
    first = max(0, _integer(query.get("first", "") or "0", "first"))
    count = _integer(query.get("count", "") or "100", "count")
    return numbers[first : first + max(0, min(count, WINDOW_MAX))]
