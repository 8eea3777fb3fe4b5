"""The family of requests, which a stage makes (`tcprism.stages.requests`).

Attributes that OpenTelemetry has a name for have it in JSON, with `_` for `.` elsewhere.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tcprism.events.column import (
    Column,
    Mask,
    Values,
    derived_column,
    equal,
    field_column,
    number,
    texts,
)
from tcprism.events.escape import escape
from tcprism.events.kinds import TLS_KINDS, Family, Kind, record
from tcprism.events.names import process
from tcprism.events.part import Part
from tcprism.events.registration import register
from tcprism.events.units import duration, size

# The kinds of events that requests are made of.
NEEDS = ("send", "recv", "acked", "retransmit", "connect", "accept", "close")
ARRIVING = (
    "receive"  # tells when segments arrived, which else only follows from when they were read
)
READS = (*NEEDS, ARRIVING, *TLS_KINDS)  # if they are recorded

PAYLOAD = 16_384  # bytes of each message, unless the user says otherwise

UNKNOWN_NS = 2**64 - 1
UNKNOWN_BYTES = 2**64 - 1

VIEWS = ("", "both", "client", "server")
SERVER_SOURCES = ("", "server", "client")
ARRIVAL_SOURCES = ("", "call", "segment")
WAITING_FOR = (
    "",
    "acknowledgement",
    "the server to read it",
    "response",
    "the client to send the rest",
)
STATES = ("", "complete", "partial", "gap", "pending", "no response")

# The parts of a request's time, in their order; together they are its duration.
SPLIT = {
    "send_queue": "the last byte of the request waited to leave, after it was written",
    "network_there": "from then until it arrived at the server",
    "server_queue": "it waited there to be read",
    "server": "from then until the response's first byte was written; `server_source` says how"
    " this is known",
    "network_back": "from then until it arrived at the client",
    "unread": "it waited there to be read",
    "transfer": "from the first to the last byte of the request, and of the response",
}


NAMES = "requests"  # a derived column of messages, segments and losses: tuples of Said


class Said(NamedTuple):
    """A request or response: where it begins and ends, counted from the first byte of an event.

    `end` is None where it is not known, or where bytes of others lie between.
    """

    begin: int
    end: int | None
    text: str


class Attribute(NamedTuple):
    """An attribute of OpenTelemetry: of which protocols, and which column has it."""

    name: str
    protocols: tuple[str, ...]
    column: str
    json_type: str = "string"


_HTTP = ("http", "http2")
_DATABASES = (
    "postgresql", "mysql", "redis", "memcached", "mongodb", "cassandra",
)  # fmt: skip
_SQL = ("postgresql", "mysql", "cassandra")
_MESSAGING = ("kafka", "amqp", "mqtt", "nats")
ATTRIBUTES = (
    Attribute("http.request.method", _HTTP, "method"),
    Attribute("http.response.status_code", _HTTP, "status", "integer"),
    Attribute("url.path", _HTTP, "resource"),
    Attribute("db.system.name", _DATABASES, "protocol"),
    Attribute("db.operation.name", _DATABASES, "method"),
    Attribute("db.query.text", _SQL, "resource"),
    Attribute("db.response.status_code", _DATABASES, "status"),
    Attribute("rpc.system.name", ("grpc",), "protocol"),
    Attribute("rpc.method", ("grpc",), "resource"),
    Attribute("rpc.response.status_code", ("grpc",), "status"),
    Attribute("messaging.system", _MESSAGING, "protocol"),
    Attribute("messaging.operation.name", _MESSAGING, "method"),
    Attribute("messaging.destination.name", _MESSAGING, "resource"),
)


def asked(protocol: str, method: str | None, resource: str | None) -> str:
    """Return what is asked for, in one line; a statement begins with its method."""
    if method and protocol in _SQL and f"{resource} ".upper().startswith(f"{method} "):
        method = None
    return " ".join(filter(None, (protocol, method, resource)))


def text(
    server_comm: str | None,
    server_pid: int | None,
    protocol: str,
    method: str | None,
    resource: str | None,
    status: str | None,
    request_state: str,
    request_ns: int | None,
    slowest_part: str | None,
    request_bytes: int | None,
    response_bytes: int | None,
    retransmissions: int,
    retransmission_wait_ns: int | None,
    retransmission_causes: str | None,
) -> str:
    """Return what a line of text says of a request."""
    what = asked(protocol, method, resource)
    total = "-" if request_ns is None else duration(request_ns / 1000)
    facts = [
        f"{what} -> {status or request_state}",
        f"{total}{_mostly(slowest_part)}",
        f"{_size(request_bytes)} there, {_size(response_bytes)} back",
        f"by {process(server_comm, server_pid)}" if server_pid else "",
        _sent_again(retransmissions, retransmission_wait_ns, retransmission_causes),
        request_state if request_state != "complete" and status else "",
    ]
    return ", ".join(filter(None, facts))


def _mostly(part: str | None) -> str:
    return f" (mostly {part})" if part else ""


def _size(count: int | None) -> str:
    return "-" if count is None else size(count)


def _sent_again(count: int, wait_ns: int | None, causes: str | None) -> str:
    if not count:
        return ""
    waited = f", waited {duration(wait_ns / 1000)} for it" if wait_ns else ""
    return (
        f"sent again {count} times ({causes}){waited}"
        if count > 1
        else (f"sent again ({causes}){waited}")
    )


def _slowest(part: Part) -> tuple[Values, Mask]:
    """Return the largest known part of each request's time; none where nothing is known."""
    table = np.stack([part.rows[f"{name}_ns"] for name in SPLIT])
    table = np.where(table == UNKNOWN_NS, 0, table)
    names = np.array([name.replace("_", " ") for name in SPLIT], object)
    known: Mask = table.max(axis=0) == 0
    return names[table.argmax(axis=0)], known


def _name_column(name: str, doc: str, names: tuple[str, ...]) -> Column:
    table = np.array(names, object)

    def values(part: Part) -> Values:
        found: Values = table[np.minimum(part.rows[name], len(names) - 1)]
        return found

    return field_column(name, ("request",), "string", doc, values, equal(name, 0))


def _bytes_column(name: str, doc: str) -> Column:
    def values(part: Part) -> Values:
        found = part.rows[name].tolist()
        shown = {value: escape(value) for value in set(found)}  # few, of many
        return texts([shown[value] for value in found])

    def missing(part: Part) -> Mask:
        mask: Mask = np.equal(part.rows[name], b"")
        return mask

    return field_column(name, ("request",), "string", doc, values, missing)


def _time_column(name: str, doc: str) -> Column:
    return field_column(
        name, ("request",), "integer", f"{doc}, nanoseconds; null when unknown", None,
        equal(name, UNKNOWN_NS),
    )  # fmt: skip


def _attribute_column(attribute: Attribute) -> Column:
    """Return a column that shows another under the name that OpenTelemetry has for it."""

    def of_protocol(part: Part) -> Mask:
        names = [name.encode() for name in attribute.protocols]
        mask: Mask = np.isin(part.rows["protocol"], names)
        return mask

    def values(part: Part) -> Values:
        found = _COLUMN[attribute.column].values(part)
        if attribute.json_type == "string":
            return found
        numbers = [int(text) if text and text.isdigit() else 0 for text in found.tolist()]
        return np.array(numbers, np.int64)

    def missing(part: Part) -> Mask:
        mask: Mask = ~of_protocol(part) | _COLUMN[attribute.column].mask(part)
        return mask

    return Column(
        attribute.name.replace(".", "_"),
        ("request",),
        attribute.json_type,
        f"`{attribute.column}` of {', '.join(attribute.protocols)}",
        None,
        values,
        missing,
        key=attribute.name,
    )


_COLUMNS = (
    _bytes_column("protocol", "the protocol that the bytes follow"),
    derived_column("method", ("request",), "string", "what is asked for: GET, SELECT, HGETALL"),
    derived_column(
        "resource",
        ("request",),
        "string",
        "of what: a path, a statement, a key; values in it are `?` unless asked for",
    ),
    derived_column("status", ("request",), "string", "the response's status, as the protocol has"),
    field_column(
        "failed",
        ("request",),
        "boolean",
        "whether the server says that it failed: 5xx, ERROR",
        lambda part: part.rows["failed"] != 0,
    ),
    _name_column(
        "request_state",
        "complete; partial: the connection ended first; gap: bytes of it were not captured;"
        " pending: not answered yet; no response: none follows in this protocol",
        STATES,
    ),
    _name_column(
        "waiting_for",
        "pending: what it waits for, if known: acknowledgement: it is being sent again; the server"
        " to read it: it lies there; response: it was read, or acknowledged where only the client"
        " is seen; the client to send the rest: it is not whole yet",
        WAITING_FOR,
    ),
    _name_column("view", "which end's process was seen: both, client, server", VIEWS),
    field_column(
        "server_pid", ("request",), "integer", "pid of the server's process", None,
        equal("server_pid", 0),
    ),
    _bytes_column("server_comm", "the server's thread name"),
    field_column("start_ts_ns", ("request",), "integer", "when its first byte was written, or"
                 " read where the client is not seen, CLOCK_MONOTONIC, nanoseconds"),
    _time_column(
        "request_ns",
        "from its first byte to the last of the response; of what is pending, until now",
    ),
    *(_time_column(f"{name}_ns", doc) for name, doc in SPLIT.items()),
    _name_column(
        "server_source",
        "how `server_ns` is known: server: seen there; client: it lasts until the response's"
        " arrival, the network's time included, from when the server reads the request, or from"
        " when that leaves if the server is not seen",
        SERVER_SOURCES,
    ),
    _name_column(
        "arrival_source",
        "how it is known when the response arrived, at the end of `network_back_ns`: segment: its"
        " first segment was seen to (the kind receive); call: by how long bytes that one call read"
        " with its first had waited, the last of them",
        ARRIVAL_SOURCES,
    ),
    Column(
        "slowest_part", ("request",), "string", "the largest part of its time", None,
        lambda part: _slowest(part)[0], lambda part: _slowest(part)[1],
    ),
    field_column(
        "retransmissions", ("request",), "integer", "segments of it that were sent again"
    ),
    _time_column("retransmission_wait_ns", "how long it waited for them, inside the parts above"),
    derived_column("retransmission_causes", ("request",), "string", "why, as in rto, tlp"),
    field_column("request_bytes", ("request",), "integer", "bytes of the request", None,
                 equal("request_bytes", UNKNOWN_BYTES)),
    field_column("response_bytes", ("request",), "integer", "bytes of the response", None,
                 equal("response_bytes", UNKNOWN_BYTES)),
    Column("request_seq", ("request",), "integer",
           "sequence number of the request's first byte; of what a server sends unasked, of that",
           "seq", number("seq")),
    field_column("response_seq", ("request",), "integer",
                 "sequence number of the response's first byte; null without one", None,
                 equal("response_seq", 0)),
)  # fmt: skip
_COLUMN = {column.name: column for column in _COLUMNS}

register(
    Family(
        "request",
        record(
            {
                "start_ts_ns": "<u8",
                "request_ns": "<u8",
                **{f"{name}_ns": "<u8" for name in SPLIT},
                "retransmission_wait_ns": "<u8",
                "request_bytes": "<u8",
                "response_bytes": "<u8",
                "response_seq": "<u4",
                "server_pid": "<u4",
                "retransmissions": "<u4",
                "server_comm": "S16",
                "protocol": "S16",
                "request_state": "u1",
                "view": "u1",
                "waiting_for": "u1",
                "server_source": "u1",
                "arrival_source": "u1",
                "failed": "u1",
            }
        ),
        (Kind("request", "a request was answered", color="36", text=text),),
    ),
    (*_COLUMNS, *map(_attribute_column, ATTRIBUTES)),
)
