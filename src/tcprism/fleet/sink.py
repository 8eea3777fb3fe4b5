"""Events into the tables of a fleet, as one of its hosts."""

from __future__ import annotations

import os
import random
import sys
import threading
import time
from datetime import datetime
from typing import Any

from tcprism.errors import ServerError
from tcprism.events import Batch, Part
from tcprism.events.arrow import to_record_batch
from tcprism.events.escape import escape_text
from tcprism.events.facts import Facts
from tcprism.events.ledger import Account, Ledger
from tcprism.events.optional import need, pyarrow
from tcprism.events.units import counted
from tcprism.fleet import schema
from tcprism.fleet.outbox import Insert, Outbox
from tcprism.fleet.rows import encoded, hosts_row, ledger_rows, repeated
from tcprism.fleet.server import Server
from tcprism.fleet.setup import version_of
from tcprism.fleet.tables import OF_FAMILY, stored
from tcprism.recording.writer import joined
from tcprism.sinks import Sink

ROWS_AT_ONCE = 50_000  # an insert has no more
EVERY = 5.0  # seconds between inserts into a table, unless it has more
TOLD_EVERY = 60.0  # seconds between two rows of the ledger, and of hosts
LAST_WORDS = 10.0  # seconds that the end waits for the server
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 60.0  # seconds before another attempt

# The server will never take this insert: it cannot read it, or not as what the table has.
# src/Common/ErrorCodes.cpp: CANNOT_PARSE_TEXT ... CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN,
# VIOLATED_CONSTRAINT.
_HOPELESS = {6, 26, 27, 32, 33, 41, 53, 70, 72, 117, 131, 349, 469}


class ClickHouse(Sink):
    """Inserts what has a table, from a thread of its own, so that the server may be slow or away.

    Rows wait in an Outbox until the server has taken them. Raises ExtraMissing.
    """

    keeps = "rows that wait for ClickHouse in memory"

    def __init__(self, server: Server, outbox: Outbox) -> None:
        _import_libraries()
        self._server = server
        self._outbox = outbox
        self._held: dict[tuple[str, int], list[Part]] = {}
        self._count = 0
        self._flushed = self._told = time.monotonic()
        self._ledger: Ledger | None = None
        self._remarks: list[str] = []
        self._over = threading.Event()
        self._reached: bool | None = None
        self._thread = threading.Thread(target=self._work, daemon=True, name="clickhouse")

    def open(self, facts: Facts) -> None:
        """Say who is here, and begin to insert."""
        self._facts = facts
        self._started_ns = _nanoseconds(facts.started)
        self._tell()
        self._thread.start()

    def write(self, batch: Batch) -> None:
        """Hold what has a table until there is enough of it."""
        for part in batch.parts:
            if part.family in OF_FAMILY and len(part):
                key = (part.family, batch.clock_offset_ns)
                self._held.setdefault(key, []).append(part)
                self._count += len(part)
        if self._count >= ROWS_AT_ONCE or time.monotonic() - self._flushed >= EVERY:
            self._flush()

    @property
    def room(self) -> int:
        """How many bytes of rows wait in memory at most."""
        return self._outbox.room

    @room.setter
    def room(self, size: int) -> None:
        self._outbox.room = size

    def let_go(self) -> int:
        """Let go of half of the rows that wait in memory; return how many that is."""
        return self._outbox.let_go()

    def account(self, ledger: Ledger) -> None:
        """Keep the account, and insert it once a minute."""
        self._ledger = ledger
        if time.monotonic() - self._told >= TOLD_EVERY:
            self._tell()

    def dropped(self) -> Account:
        """Return what became of rows: taken = inserted + dropped + those that wait."""
        box = self._outbox
        counts = {
            "clickhouse_rows": box.put_rows,
            "clickhouse_inserted": box.inserted,
            "clickhouse_dropped": box.dropped,
        }
        remarks = list(self._remarks)
        if box.dropped:
            why = f" ({box.trouble})" if box.trouble else ""
            remarks.append(f"{counted(box.dropped, 'row')} did not reach ClickHouse{why}")
        if self._over.is_set() and box.waiting:
            remarks.append(f"{counted(box.waiting, 'row')} for ClickHouse wait for the next start")
        return Account(counts=counts, remarks=tuple(remarks))

    def close(self) -> None:
        """Insert the rest; what the server does not take soon goes to disk, if there is a spool."""
        self._flush()
        self._tell()
        self._over.set()
        self._outbox.wake()
        self._thread.join(LAST_WORDS)
        self._outbox.failed()
        self._outbox.spill()
        self._outbox.abandon()

    def _flush(self) -> None:
        held, self._held = self._held, {}
        self._count, self._flushed = 0, time.monotonic()
        for (_, offset), parts in held.items():
            for part in joined(parts):
                for piece in Batch([part], offset).split(ROWS_AT_ONCE):
                    self._put(OF_FAMILY[part.family].name, self._of_host(piece))

    def _of_host(self, batch: Batch) -> Any:
        """Return a batch of one family with the name of its host."""
        names = [column.name for column in stored(batch.parts[0].family)]
        made = to_record_batch(batch, names)
        host = repeated(self._facts.host, len(batch))
        return pyarrow().RecordBatch.from_arrays([host, *made.columns], ["host", *names])

    def _put(self, table: str, batch: Any) -> None:
        self._outbox.put(table, batch.num_rows, encoded(batch))

    def _tell(self) -> None:
        """Insert who is here and its account."""
        self._told = time.monotonic()
        self._put("hosts", hosts_row(self._facts, self._started_ns, time.time_ns()))
        if self._ledger and any(entry.seen for entry in self._ledger.entries):
            host = self._facts.host
            self._put("ledger", ledger_rows(host, self._ledger, self._started_ns, time.time_ns()))

    def _work(self) -> None:
        wait = _FIRST_WAIT
        while True:
            insert = self._outbox.next(1.0)
            if insert is None:
                if self._over.is_set():
                    return
                continue
            if self._send(insert):
                wait = _FIRST_WAIT
                continue
            self._outbox.failed()
            self._outbox.spill()
            if self._over.wait(wait * random.uniform(0.5, 1.5)):
                return
            wait = min(2 * wait, _LONGEST_WAIT)

    def _send(self, insert: Insert) -> bool:
        """Send an insert; tell whether to go on at once."""
        try:
            if self._reached is not True:
                self._greet()
            self._server.insert(insert.table, insert.data, insert.token)
        except ServerError as error:
            if error.code in _HOPELESS:
                self._outbox.done(insert, inserted=False)
                self._remark(f"ClickHouse cannot take rows of {insert.table}: {error}")
                return True
            self._say(False, f"{error}: rows wait until it takes them")
            return False
        except Exception as error:  # whatever a library does with a foreign answer
            self._say(False, f"{self._server.address}: {type(error).__name__}: rows wait")
            return False
        self._outbox.done(insert, inserted=True)
        self._say(True, f"{self._server.address} takes rows again")
        return True

    def _greet(self) -> None:
        """Look at the server's schema before the first insert."""
        there, ours = version_of(self._server), max(schema.versions())
        if there < ours and there:
            self._remark(
                f"ClickHouse has version {there} of the schema, this tcprism knows {ours}: what is"
                " new is left out there until `tcprism fleet init` is run"
            )

    def _remark(self, text: str) -> None:
        if text not in self._remarks and len(self._remarks) < 8:
            self._remarks.append(text)
            print(escape_text(text), file=sys.stderr, flush=True)

    def _say(self, reached: bool, text: str) -> None:
        """Say once that the server is away, and once that it is back."""
        if reached != self._reached and not (reached and self._reached is None):
            print(escape_text(text), file=sys.stderr, flush=True)
        self._reached = reached


def _import_libraries() -> None:
    """Import what is needed while all files can be read and a thread would be in the way.

    jemalloc, which is in pyarrow, starts one unless it is told not to.
    """
    os.environ.setdefault("JE_ARROW_MALLOC_CONF", "background_thread:false")
    pyarrow()
    for module in ("pyarrow.ipc", "pyarrow.compute", "clickhouse_connect.driver", "encodings.idna"):
        need(module, "clickhouse")


def _nanoseconds(started: str) -> int:
    """Return a moment in RFC 3339 as nanoseconds since 1970; now where it says nothing."""
    return round(datetime.fromisoformat(started).timestamp() * 1e9) if started else time.time_ns()
