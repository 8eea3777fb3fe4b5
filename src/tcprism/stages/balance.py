"""Whether all plaintext of each TLS session was seen: it and what records add make the ciphertext.

The kernel side counts what each session moves in each direction, so what is missing is known to the
byte: plaintext whose events were lost, and records that no call moved which is read.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tcprism.events import Batch
from tcprism.events._wire import BYTES_UNKNOWN, EventKind, SocketSource
from tcprism.events.connection import connection_keys
from tcprism.events.escape import escape
from tcprism.events.ledger import Account
from tcprism.events.names import address, endpoint, process
from tcprism.events.part import Rows
from tcprism.events.units import counted
from tcprism.stages import StatefulStage
from tcprism.stages.sampling import ALL, in_sample, mixed_ends

STREAMS_MAX = 65_536
_NAMED = 5
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # Fibonacci hashing

# How much longer a record is than its plaintext, at least: the header, the type inside (TLS 1.3)
# and the shortest tag (RFC 8446, section 5.2; RFC 6655).
_OVERHEAD_MIN = 5 + 1 + 8
_RECORD_MAX = 1 << 14  # bytes of plaintext, RFC 8446, section 5.1

# Of a direction of a session, in bytes: where its plaintext begins and ends as the kernel side has
# counted it, how much of it was seen; its records, and how long they are at least; what was missed.
# The last is mixed_ends() of its connection.
_BEGIN, _END, _SEEN, _RECORDS, _LEAST, _MISSED, _ENDS = range(7)
_JOIN = (np.minimum, np.maximum, np.add, np.add, np.add, np.maximum)
_UNKNOWN = BYTES_UNKNOWN  # missed: its first records were not seen

_COUNTS = ("tls_plaintext_lost", "tls_records_missed", "tls_unbalanced")
_REMARKS = (
    "{:,} bytes of plaintext are missing, as their events were lost: {}",
    "{:,} bytes of TLS records moved outside of the calls that are read, so that their plaintext is"
    " missing: {}",
    "{:,} bytes of plaintext are more than the TLS records can have that carry them: {}",
)


class Balance(StatefulStage):
    """A stage that passes all events, and accounts for the plaintext of each session."""

    def __init__(self) -> None:
        self._streams: dict[int, list[int]] = {}
        self._totals = [0] * len(_COUNTS)
        self._named: tuple[dict[str, None], ...] = ({}, {}, {})
        self._begun: set[int] = set()  # sessions whose begin was not seen
        self._forgotten = False  # some: what seems to be new may have begun long ago
        self._recorded = ALL  # which sample of the connections is

    def __call__(self, batch: Batch) -> Batch:
        """Count plaintext and records."""
        parts = [part.rows for part in batch.parts if part.family == "tls"]
        known = [rows[rows["socket_source"] != SocketSource.NONE] for rows in parts]
        if any(map(len, known)):
            self._take(np.concatenate(known))
        return batch

    def sample(self, sampling: int) -> None:
        """Take note that plaintext is recorded of one in 2^`sampling` connections from now on.

        What others move meanwhile is not missing; they count anew when they are recorded again.
        """
        if sampling == self._recorded:
            return
        self._recorded, self._forgotten = sampling, True
        self._streams = {
            key: stream
            for key, stream in self._streams.items()
            if in_sample(stream[_ENDS], sampling)
        }

    def account(self) -> Account:
        """Return what is missing, and of which connections."""
        begun = len(self._begun)
        counts = {**dict(zip(_COUNTS, self._totals, strict=True)), "tls_begun_before": begun}
        remarks = [
            text.format(total, "; ".join(names) + ("; ..." if len(names) == _NAMED else ""))
            for text, total, names in zip(_REMARKS, self._totals, self._named, strict=True)
            if total
        ]
        if begun:
            read = "it" if begun == 1 else "them"
            remarks.append(
                f"{counted(begun, 'TLS session')} had begun before tcprism could read {read}"
            )
        return Account(counts=counts, remarks=tuple(remarks))

    def _take(self, rows: Rows) -> None:
        keys = _keys(rows)
        order = np.argsort(keys, kind="stable")
        rows, keys = rows[order], keys[order]
        first = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1])))
        moved = [join.reduceat(each, first) for join, each in zip(_JOIN, _moved(rows), strict=True)]
        for key, place, now in zip(
            keys[first].tolist(), first.tolist(), np.stack(moved, axis=1).tolist(), strict=True
        ):
            self._add(key, now, rows[place])

    def _add(self, key: int, now: list[int], row: np.void) -> None:
        before = self._streams.pop(key, None)
        if before is None:
            ends = mixed_ends(*(_end(row, end) for end in ("local", "remote")))
            if not in_sample(ends, self._recorded):
                return  # from before the sample became smaller
            before = [now[_BEGIN] if self._forgotten else 0, 0, 0, 0, 0, 0, ends]
        now.append(before[_ENDS])
        now[_BEGIN] = before[_BEGIN]
        for place in (_SEEN, _RECORDS, _LEAST):
            now[place] += before[place]
        for place in (_END, _MISSED):
            now[place] = max(now[place], before[place])
        for what, (old, new) in enumerate(zip(_missing(before), _missing(now), strict=True)):
            self._totals[what] += new - old
            if new > old and len(self._named[what]) < _NAMED:
                self._named[what][_name(row)] = None
        if now[_MISSED] == _UNKNOWN and len(self._begun) < STREAMS_MAX:
            self._begun.add(key >> 1)
        self._streams[key] = now
        if len(self._streams) > STREAMS_MAX:
            del self._streams[next(iter(self._streams))]
            self._forgotten = True


def _missing(stream: list[int]) -> tuple[int, int, int]:
    """Return what is missing of a direction, in the order of the counts."""
    begin, end, seen, records, least, missed = stream[:_ENDS]
    lost = max(end - begin - seen, 0)
    if missed == _UNKNOWN:
        return lost, 0, 0
    whole = not (lost or missed or begin)
    return lost, missed, max(least - records, 0) if whole else 0


def _end(row: np.void, end: str) -> bytes:
    address_of, port = row[f"{end}_ip"].tobytes(), row[f"{end}_port"].tobytes()
    return bytes(address_of + port)


def _keys(rows: Rows) -> NDArray[np.uint64]:
    """Return a number a record that stands for a session of a process; its last bit: received."""
    keys = connection_keys(rows)
    for name in ("session", "pid"):
        keys ^= rows[name].astype(np.uint64)
        keys *= _MULTIPLIER
        keys ^= keys >> np.uint64(32)
    received = (rows["kind"] == EventKind.TLS_RECV).astype(np.uint64)
    streams: NDArray[np.uint64] = keys << np.uint64(1) | received
    return streams


def _moved(rows: Rows) -> list[NDArray[np.int64]]:
    """Return what each call moved, in the columns of a stream."""
    size, begin, records, missed = (
        rows[name].astype(np.int64)
        for name in ("bytes", "stream_offset", "encrypted_bytes", "missed_bytes")
    )
    count = np.where(records > 0, -(-size // _RECORD_MAX), 0)
    return [begin, begin + size, size, records, size + count * _OVERHEAD_MIN, missed]


def _name(row: np.void) -> str:
    """Return a session's process, and from where its bytes went to where."""
    local, remote = (
        endpoint(address(int(row["family"]), row[f"{end}_ip"].tobytes()), int(row[f"{end}_port"]))
        for end in ("local", "remote")
    )
    ends = (local, remote) if row["kind"] == EventKind.TLS_SEND else (remote, local)
    return f"{process(escape(row['comm']), int(row['pid']))}, {' > '.join(ends)}"
