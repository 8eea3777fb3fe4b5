"""Request evidence: the requests of all connections, reduced as they end to what verdicts need."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tcprism.diagnosis.ends import Numbers, ends_keys, other_end_keys
from tcprism.diagnosis.waits import ASKED, SERVED, SHORT_NS, Waits
from tcprism.events import Batch, Part
from tcprism.events.columns import BY_NAME
from tcprism.events.names import endpoint, process
from tcprism.events.requests import SERVER_SOURCES, STATES, UNKNOWN_NS, VIEWS, WAITING_FOR, asked
from tcprism.stages.requests import Requests

CONNECTIONS_MAX = 65_536
SERVERS_MAX = 10_000
AT_ONCE = 0.25  # seconds of CPU that it may take beyond its share
SLOW_MAX = 20_000
SLOW_NS = 10_000_000  # what another process may have waited for meanwhile
PENDING_MAX = 10_000
NAME_MAX = 120  # characters of what a request asks for

_BOTH, _CLIENT = VIEWS.index("both"), VIEWS.index("client")
_COMPLETE, _GAP = STATES.index("complete"), STATES.index("gap")
_SEEN_AT_CLIENT = SERVER_SOURCES.index("client")
_REST = WAITING_FOR.index("the client to send the rest")
_HANDSHAKE = b"tls"  # what follows it is not read

Mask = NDArray[np.bool_]
Times = NDArray[np.int64]


class Asked(NamedTuple):
    """A request in short: who asked whom for what, and when (CLOCK_MONOTONIC, nanoseconds).

    `took_ns` is what the server took, 0 if unknown. `client` and `server` are pids, 0 if not seen.
    """

    what: str
    begun_ns: int
    done_ns: int
    took_ns: int
    client: int
    client_name: str
    server: int
    server_name: str
    at: str  # the server's host and port
    waiting_for: str = ""


@dataclass(slots=True)
class Server:
    """What a process asked one server for: requests, with what that took, and the slowest."""

    process: str
    at: str
    count: int = 0
    took_ns: int = 0
    slowest: Asked | None = None
    pending: list[Asked] = field(default_factory=list)  # the oldest first

    @property
    def waited_ns(self) -> int:
        """What the requests took, with what the pending ones have waited so far."""
        return self.took_ns + sum(one.done_ns - one.begun_ns for one in self.pending)


class RequestEvidence:
    """Takes events; holds CONNECTIONS_MAX ends of connections and SERVERS_MAX servers of processes.

    `share` is how much of a CPU it may take: 0 for all. What it leaves out is in `skipped`.
    """

    def __init__(self, share: float = 0.0) -> None:
        self._stage = Requests(alone=True)
        self._share = share
        self._began = self._spent = 0.0
        self.numbers = Numbers(CONNECTIONS_MAX)
        self.waits = Waits()
        self.slowest: tuple[dict[int, Asked], dict[int, Asked]] = ({}, {})
        self.gaps: set[int] = set()
        self.parallel: set[int] = set()
        self._until: dict[int, int] = {}  # of each number, when its latest request was over
        self._servers: dict[tuple[int, str], Server] = {}
        self.slow: deque[Asked] = deque(maxlen=SLOW_MAX)
        self.skipped = 0
        self._resumes = False  # behind events that were left out
        self._payload = False  # whether there is any to read

    def add(self, batch: Batch) -> None:
        """Take the events of a batch."""
        self._payload = self._payload or any(part.payload is not None for part in batch.parts)
        if not self._payload:
            return
        now = time.monotonic()
        self._began = self._began or now
        if self._share and self._spent > self._share * (now - self._began) + AT_ONCE:
            self.skipped += len(batch)
            self._resumes = True
            return
        begun = time.thread_time()  # on a busy machine others have the rest of the time
        if self._resumes:  # the plaintext of TLS does not show that some is missing
            self._stage, self._resumes = Requests(alone=True), False
        for part in (*self._stage(batch).parts, *self._stage.tick(0).parts):
            self._add(part)
        self._spent += time.thread_time() - begun

    def _add(self, part: Part) -> None:
        state = part.rows["request_state"]
        is_request = (part.rows["protocol"] != _HANDSHAKE) & (part.rows["server_ns"] != UNKNOWN_NS)
        part = part.take(is_request & ((state == _COMPLETE) | (state == _GAP)))
        if not len(part):
            return
        took = _took(part)
        view = part.rows["view"]
        keys = (ends_keys(part.rows), other_end_keys(part.rows))
        seen_there = part.rows["server_source"] != _SEEN_AT_CLIENT  # else the network took some
        for side, seen in ((ASKED, (view == _BOTH) | (view == _CLIENT)), (SERVED, seen_there)):
            numbers = np.where(seen, self.numbers.of(keys[side]), -1)
            self._add_side(side, part, numbers, took)
        self._add_servers(part, took)
        slow = took >= SLOW_NS
        self.slow.extend(_named(part.take(slow), took[slow]))

    def _add_side(self, side: int, part: Part, numbers: NDArray[np.intp], took: Times) -> None:
        rows = part.rows
        self.gaps.update(numbers[rows["request_state"] == _GAP].tolist())
        known = numbers >= 0
        part, numbers, took = part.take(known), numbers[known], took[known]
        begun = part.rows["start_ts_ns"].astype(np.int64)
        self.waits.keep(side, numbers, begun, begun + took)
        done = part.rows["ts_ns"].tolist()
        for number, since, until in zip(numbers.tolist(), begun.tolist(), done, strict=True):
            if since < self._until.get(number, 0):
                self.parallel.add(number)
            self._until[number] = max(until, self._until.get(number, 0))
        longest = _longest(numbers, took)
        longest = longest[took[longest] >= SHORT_NS]
        slowest = self.slowest[side]
        for place, one in zip(
            longest.tolist(), _named(part.take(longest), took[longest]), strict=True
        ):
            number = int(numbers[place])
            if number not in slowest or one.took_ns > slowest[number].took_ns:
                slowest[number] = one

    def _add_servers(self, part: Part, took: Times) -> None:
        """Add up what each process asked each server for."""
        known = (part.rows["pid"] > 0) & (part.rows["view"] != VIEWS.index("server"))
        part, took = part.take(known), took[known]
        groups = _groups(part)
        _, which, counts = np.unique(groups, return_inverse=True, return_counts=True)
        total = np.zeros(len(counts), np.int64)
        np.add.at(total, which, took)
        longest = _longest(which, took)
        for one, many, sum_ns in zip(
            _named(part.take(longest), took[longest]), counts.tolist(), total.tolist(), strict=True
        ):
            server = self._server(one)
            if server is None:
                continue
            server.count += many
            server.took_ns += sum_ns
            if server.slowest is None or one.took_ns > server.slowest.took_ns:
                server.slowest = one

    def _server(self, one: Asked) -> Server | None:
        key = one.client, one.at
        if key not in self._servers:
            if len(self._servers) >= SERVERS_MAX:
                return None
            self._servers[key] = Server(one.client_name, one.at)
        return self._servers[key]

    def pending(self, now_ns: int) -> list[tuple[Asked, int, int]]:
        """Return whole requests without a response, oldest first, with the numbers of both ends.

        A number is -1 where that end was not seen.
        """
        for _ in range(2):  # what is held for a tick is over now
            for part in self._stage.tick(now_ns).parts:
                self._add(part)
        found: list[tuple[Asked, int, int]] = []
        for part in self._stage.pending(PENDING_MAX).parts:
            rows = part.rows
            whole = (rows["waiting_for"] != _REST) & (rows["protocol"] != _HANDSHAKE)
            part = part.take(whole & (rows["start_ts_ns"] > 0) & (rows["start_ts_ns"] < now_ns))
            part = part.take(np.argsort(part.rows["start_ts_ns"], kind="stable"))
            view = part.rows["view"]
            asks = np.where(
                view == VIEWS.index("server"), -1, self.numbers.of(ends_keys(part.rows))
            )
            serves = self.numbers.of(other_end_keys(part.rows))
            serves = np.where(view == _CLIENT, -1, serves)
            part.rows["ts_ns"] = now_ns
            requests = _named(part, np.zeros(len(part), np.int64))
            found += zip(requests, asks.tolist(), serves.tolist(), strict=True)
        return found

    def servers(self, pending: Iterable[Asked], pids: Container[int]) -> list[list[Server]]:
        """Return, of each of some processes that asked several servers, what it asked them for.

        The server that it waited for longest comes first.
        """
        for server in self._servers.values():
            server.pending = []
        for one in pending:
            asked_one = self._server(one) if one.client else None
            if asked_one:
                asked_one.pending.append(one)
        processes: dict[int, list[Server]] = {}
        for (pid, _), server in self._servers.items():
            if pid in pids:
                processes.setdefault(pid, []).append(server)
        return [
            sorted(servers, key=lambda server: -server.waited_ns)
            for servers in processes.values()
            if len(servers) > 1
        ]


def meanwhile(served: Asked, others: list[Asked]) -> Asked | None:
    """Return the request that a server itself made to another and waited for meanwhile.

    `others` are slow requests, among them those that the same process served. If it served another
    one at that time, nobody knows for which of them it asked.
    """
    if not served.server:
        return None
    within = [
        one
        for one in others
        if one.client == served.server
        and served.begun_ns <= one.begun_ns
        and one.done_ns <= served.done_ns
    ]
    longest = max(within, key=lambda one: one.done_ns - one.begun_ns, default=None)
    if longest is None or 2 * (longest.done_ns - longest.begun_ns) < _span(served):
        return None
    for one in others:
        besides = one.server == served.server and one[1:3] != served[1:3]
        if besides and one.begun_ns <= longest.done_ns and longest.begun_ns <= one.done_ns:
            return None
    return longest


def _span(one: Asked) -> int:
    return one.took_ns or one.done_ns - one.begun_ns


def _took(part: Part) -> Times:
    """Return what the server took for each request, without what retransmissions did."""
    rows = part.rows
    again = np.where(
        (rows["server_source"] == _SEEN_AT_CLIENT) & (rows["retransmission_wait_ns"] != UNKNOWN_NS),
        rows["retransmission_wait_ns"],
        0,
    )
    return (rows["server_ns"].astype(np.int64) - again.astype(np.int64)).clip(0)


def _longest(groups: NDArray[np.intp], took: Times) -> NDArray[np.intp]:
    """Return the place of the longest in each group, in the order of the groups."""
    order = np.lexsort((took, groups))
    last = np.r_[groups[order][1:] != groups[order][:-1], True] if len(order) else []
    return order[np.array(last, np.bool_)]


def _groups(part: Part) -> NDArray[np.void]:
    """Return who asked whom, as bytes."""
    rows = part.rows
    table = np.zeros(len(rows), [("pid", "<u4"), ("ip", "u1", 16), ("port", "<u2")])
    table["pid"], table["ip"], table["port"] = rows["pid"], rows["remote_ip"], rows["remote_port"]
    return table.view(f"V{table.itemsize}")


_NAMES = (
    "protocol",
    "method",
    "resource",
    "start_ts_ns",
    "pid",
    "comm",
    "server_pid",
    "server_comm",
    "remote_ip",
    "remote_port",
    "waiting_for",
)


def _named(part: Part, took: Times) -> Iterator[Asked]:
    """Yield requests in short."""
    if not len(part):
        return
    columns = [BY_NAME[name].to_list(part) for name in _NAMES]
    for took_ns, done, row in zip(
        took.tolist(), part.rows["ts_ns"].tolist(), zip(*columns, strict=True), strict=True
    ):
        protocol, method, resource, begun, pid, comm, server_pid, server_comm, ip, port, why = row
        what = asked(protocol, method, resource)
        yield Asked(
            what if len(what) <= NAME_MAX else f"{what[: NAME_MAX - 3]}...",
            begun,
            done,
            took_ns,
            pid or 0,
            process(comm, pid or None),
            server_pid or 0,
            process(server_comm, server_pid) if server_pid else "",
            endpoint(ip, port),
            why or "",
        )
