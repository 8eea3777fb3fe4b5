"""The protocols that are known, in the order in which they are tried."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from tcprism.errors import UsageError
from tcprism.events.optional import plugin, plugins
from tcprism.protocols import GROUP, Protocol
from tcprism.protocols.amqp import AMQP
from tcprism.protocols.cassandra import CASSANDRA
from tcprism.protocols.dns import DNS
from tcprism.protocols.http1 import HTTP1, WEBSOCKET
from tcprism.protocols.http2 import GRPC, HTTP2
from tcprism.protocols.kafka import KAFKA
from tcprism.protocols.memcached import MEMCACHED
from tcprism.protocols.mongodb import MONGODB
from tcprism.protocols.mqtt import MQTT
from tcprism.protocols.mysql import MYSQL
from tcprism.protocols.nats import NATS
from tcprism.protocols.postgresql import POSTGRESQL
from tcprism.protocols.redis import REDIS
from tcprism.protocols.tls import TLS

PROTOCOLS: tuple[Protocol, ...] = (
    HTTP1,
    WEBSOCKET,
    HTTP2,
    GRPC,
    AMQP,
    POSTGRESQL,
    MYSQL,
    TLS,
    MONGODB,
    CASSANDRA,
    MQTT,
    NATS,
    REDIS,
    MEMCACHED,
    KAFKA,
    DNS,
)


_ALSO_CALLED = {
    "http1": "http",
    "https": "tls",
    "h2": "http2",
    "ssl": "tls",
    "mariadb": "mysql",
    "psql": "postgresql",
    "pg": "postgresql",
    "cql": "cassandra",
    "rabbitmq": "amqp",
    "ws": "websocket",
}


def _instead(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(_ALSO_CALLED.get(name.lower(), name.lower()), known, 1)
    return f"did you mean {near[0]}?" if near else f"choose from {', '.join(known)}"


def protocols(names: Iterable[str] | None = None) -> Sequence[Protocol]:
    """Return the protocols with these names, None: all, installed ones too. Raises UsageError."""
    known = {protocol.name: protocol for protocol in PROTOCOLS}
    known |= {name: plugin(GROUP, name) for name in plugins(GROUP)}
    if names is None:
        return tuple(known.values())
    chosen = tuple(names)
    for name in chosen:
        if name not in known:
            raise UsageError(f"--protocol: {name!r} is not a protocol; {_instead(name, known)}")
    return tuple(known[name] for name in known if name in chosen)
