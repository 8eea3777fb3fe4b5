"""The protocols that are known, in the order in which they are tried."""

from __future__ import annotations

from tcprism.protocols import Protocol
from tcprism.protocols.amqp import AMQP
from tcprism.protocols.dns import DNS
from tcprism.protocols.http1 import HTTP1
from tcprism.protocols.http2 import HTTP2
from tcprism.protocols.memcached import MEMCACHED
from tcprism.protocols.mqtt import MQTT
from tcprism.protocols.nats import NATS
from tcprism.protocols.postgresql import POSTGRESQL
from tcprism.protocols.redis import REDIS
from tcprism.protocols.tls import TLS

PROTOCOLS: tuple[Protocol, ...] = (
    HTTP1,
    HTTP2,
    AMQP,
    POSTGRESQL,
    TLS,
    MQTT,
    NATS,
    REDIS,
    MEMCACHED,
    DNS,
)
