"""The connections that are followed, found again by their ends, and forgotten in their order."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator

import numpy as np

from tcprism.events._wire import EVENT
from tcprism.protocols.conversation import Conversation
from tcprism.stages.ends import Connection, Ends, View


class OpenConnections:
    """Connections, oldest first; `begin` makes the conversation of a new one.

    `views` holds the ends that were seen, by key.
    """

    def __init__(self, begin: Callable[[], Conversation]) -> None:
        self._begin = begin
        self.views: dict[int, View] = {}
        self._all: OrderedDict[int, Connection] = OrderedDict()  # by id()
        self._by_ends: dict[Ends, list[Connection]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, connection: Connection) -> bool:
        return id(connection) in self._all

    def __iter__(self) -> Iterator[Connection]:
        return iter(self._all.values())

    def streams(self) -> Iterator[Connection]:
        """Yield connections, and the plaintext of those with TLS."""
        for connection in self:
            yield connection
            if connection.plaintext:
                yield connection.plaintext

    def used(self, end: View | int, record: np.void, pid: int) -> View:
        """Return an end, which may be known by its key only, as one that a process uses."""
        view = self.view(record, end) if isinstance(end, int) else end
        view.pid = pid
        view.head = record.tobytes()[: EVENT.itemsize]
        return view

    def view(self, record: np.void, key: int) -> View:
        """Find the connection that an end belongs to, which the other end may have begun."""
        local = record["local_ip"].tobytes() + record["local_port"].tobytes()
        remote = record["remote_ip"].tobytes() + record["remote_port"].tobytes()
        side = int(local > remote)
        ends = (remote, local) if side else (local, remote)
        known = self._by_ends.setdefault(ends, [])
        for connection in known:
            if connection.views[side] is None and connection.is_near(record, side):
                break
        else:
            connection = Connection(ends, self._begin())
            known.append(connection)
            self._all[id(connection)] = connection
        view = View(connection, side, key)
        view.head = record.tobytes()[: EVENT.itemsize]
        connection.views[side] = view
        self.views[key] = view
        return view

    def remove(self, connection: Connection) -> None:
        """Forget a connection and its ends."""
        del self._all[id(connection)]
        known = self._by_ends[connection.ends]
        known.remove(connection)
        if not known:
            del self._by_ends[connection.ends]
        for side, view in enumerate(connection.views):
            if view:
                self.views.pop(view.key, None)
                connection.views[side] = None  # else only the garbage collector would free them
