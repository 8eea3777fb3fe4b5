"""Model: what the screens share. Nothing here needs Textual."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tcprism.diagnosis.connections import BY_COLUMN, Places, order
from tcprism.diagnosis.delta import Delta
from tcprism.diagnosis.ends import Numbers, own_keys
from tcprism.diagnosis.event_history import EventHistory, chosen
from tcprism.diagnosis.feeds import Feed
from tcprism.diagnosis.groups import GROUPINGS, Groups, group, listening
from tcprism.diagnosis.losses import Losses
from tcprism.diagnosis.request_history import RequestHistory, concerns, made
from tcprism.diagnosis.search import Group, Search
from tcprism.diagnosis.segments import Segments, are_whole
from tcprism.diagnosis.table import empty
from tcprism.diagnosis.watch import Watch
from tcprism.events import Batch, Part
from tcprism.events.columns import BY_NAME
from tcprism.filter_texts import parse_network
from tcprism.filters import Criteria
from tcprism.stages.requests import Requests

NO_GROUPING = "connection"
ALL_GROUPINGS = (NO_GROUPING, *GROUPINGS)


class Model:
    """The connections now, the events so far, and how both are to be shown."""

    def __init__(self, feed: Feed, sort: str) -> None:
        self.feed = feed
        self.sort = sort
        self.reverse = False
        self.search = Search()
        self.grouping = NO_GROUPING
        self.table = empty()
        self.watch: Watch | None = None
        self.watch_gone = False
        self.forget_events()

    def forget_events(self) -> None:
        """Begin anew with the events."""
        self._book = EventHistory()
        self._requests: RequestHistory | None = None
        self._sift()
        self.follow()

    def look_for(self, search: Search) -> None:
        """Show what matches a search from now on, of the events that have come, too."""
        self.search = search
        self._sift()

    def look_into(self, label: str) -> None:
        """Show the members of a group."""
        group = Group(self.grouping, label, listening(self.table))
        self.grouping = NO_GROUPING
        self.look_for(replace(self.search, group=group))

    def _sift(self) -> None:
        """Choose the events to show anew."""
        self.book = EventHistory()
        self.losses = Losses()
        self.loss_book = EventHistory(lambda part: np.full(len(part), part.family == "loss"))
        for batch in self._book.batches():
            self._show(batch)

    def _show(self, batch: Batch) -> None:
        found = chosen(batch, self.search.events) if self.search else batch
        self.book.add(found)
        self.losses.add(found)
        self.loss_book.add(found)

    def follow(self) -> None:
        """Begin anew with the events of the watched connection."""
        watch = self.watch
        self.timeline = EventHistory(watch.concerns if watch else None)
        self.talk = EventHistory(lambda part: np.full(len(part), part.family == "message"))
        self._numbers = Numbers(1)
        self._segments = Segments(self._numbers)
        self.talk_stage = Requests(alone=True)
        self.talk_requests = EventHistory()

    def add_events(self, batch: Batch) -> None:
        """Take events that have come."""
        self._book.add(batch)
        self._show(batch)
        if self._requests:
            self._requests.add(batch)
        if self.watch:
            concerning = chosen(batch, self.watch.concerns)
            self.timeline.add(concerning)
            self._segments.add([part for part in concerning.parts if part.family == "segment"])
            self.talk.add(concerning)
            self.talk_requests.add(made(self.talk_stage, concerning))

    def requests(self) -> RequestHistory:
        """Return the requests in the events so far, from now on as they come.

        Raises ExtraMissing.
        """
        if self._requests is None:
            requests = RequestHistory(self.feed.has_requests)
            for batch in self._book.batches():
                requests.add(batch)
            self._requests = requests
        return self._requests

    def events_of(self, request: Part) -> EventHistory:
        """Return the messages of a request and what was sent again of it, if they are kept."""
        row = request.rows[0]
        found = EventHistory(lambda part: concerns(row, part))
        for batch in self._book.batches():
            found.add(batch)
        return found

    def look(self) -> None:
        """Have the watched connection follow the table."""
        watch = self.watch
        if not watch:
            return
        if past := self.feed.past(watch.inode):
            watch.snapshots = past[:-1] or past
            self.watch_gone = False
        if not self.watch_gone:
            self.watch_gone = not watch.look(self.table)

    def watched(self, watch: Watch) -> Delta:
        """Return what became of the watched connection, with what its segments tell."""
        change, ledger = watch.change(), self.feed.ledger()
        if ledger and not are_whole(ledger):
            return change
        numbers = self._numbers.find(own_keys(change.after))
        moments = change.after["ts_ns"].astype(np.int64)
        return replace(change, facts=self._segments.facts(numbers, moments))

    # the connections in their order

    def places(self) -> Places:
        """Return the connections that the search lets through, in order."""
        found = self._found()
        keys = BY_COLUMN[self.sort].keys(self.table)[found]
        ordered = found[order(keys)]
        return ordered[::-1] if self.reverse else ordered

    def groups(self) -> tuple[Groups, Places]:
        """Return the groups of the connections that the search lets through, and their order."""
        groups = group(self.table, self.grouping, self._found())
        keys = getattr(groups, GROUP_KEYS.get(self.sort, "rate_out"))
        places = order(np.array(keys, object) if isinstance(keys, list) else keys)
        return groups, places[::-1] if self.reverse else places

    def _found(self) -> Places:
        found = np.arange(len(self.table))
        return found[self.search.connections(self.table)] if self.search else found

    # what is asked of the feed

    def open_watch(self, place: int) -> None:
        """Watch a connection of the table from now on."""
        self.watch = Watch(self.table.part.take(np.array([place])))
        self.watch_gone = False
        self.follow()
        self.look()

    def watch_filter(self) -> Criteria:
        """Return the filter that only the watched connection passes."""
        if not self.watch:
            return self.feed.filters
        row = self.watch.part.rows[0]
        remote = BY_NAME["remote_ip"].to_list(self.watch.part)[0]
        local, peer = int(row["local_port"]), int(row["remote_port"])
        return Criteria(
            remote_hosts=(parse_network(remote),) if peer else (),
            local_ports=((local, local),),
            remote_ports=((peer, peer),) if peer else (),
            netns=(int(row["netns"]),),
        )


GROUP_KEYS = {
    "owner": "labels",
    "netns": "labels",
    "local": "labels",
    "remote": "labels",
    "state": "members",
    "out": "rate_out",
    "in": "rate_in",
    "trend": "rate_out",
    "rtt": "rtt",
    "retransmits": "retransmit_share",
    "send_queue": "send_queue",
    "receive_queue": "receive_queue",
    "limit": "members",
}
