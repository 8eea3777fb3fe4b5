-- Sums of each minute, which stay for longer than what they are made of.

CREATE TABLE IF NOT EXISTS requests_by_minute
(
    `host` LowCardinality(String),
    `minute` DateTime('UTC') CODEC(Delta(4), ZSTD(1)),
    `view` LowCardinality(String),
    `protocol` LowCardinality(String),
    `method` LowCardinality(String),
    `resource` LowCardinality(String),
    `status` LowCardinality(String),
    `comm` LowCardinality(String),
    `server_comm` LowCardinality(String),
    `server_port` UInt16,
    `requests` SimpleAggregateFunction(sum, UInt64),
    `failed` SimpleAggregateFunction(sum, UInt64),
    `request_ns` SimpleAggregateFunction(sum, UInt64),
    `server_ns` SimpleAggregateFunction(sum, UInt64),
    `retransmissions` SimpleAggregateFunction(sum, UInt64),
    `retransmission_wait_ns` SimpleAggregateFunction(sum, UInt64),
    `slowest_ns` SimpleAggregateFunction(max, UInt64),
    `quantiles_ns` AggregateFunction(quantilesTDigest(0.5, 0.9, 0.99), Nullable(UInt64))
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(minute)
ORDER BY (host, minute, view, protocol, method, resource, status, comm, server_comm, server_port)
TTL minute + INTERVAL 400 DAY
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000;

CREATE MATERIALIZED VIEW IF NOT EXISTS requests_to_minutes TO requests_by_minute AS
SELECT
    host, toStartOfMinute(toDateTime(time, 'UTC')) AS minute,
    coalesce(requests.view, '') AS view, coalesce(requests.protocol, '') AS protocol,
    coalesce(requests.method, '') AS method, coalesce(requests.resource, '') AS resource,
    coalesce(requests.status, '') AS status, coalesce(requests.comm, '') AS comm,
    coalesce(requests.server_comm, '') AS server_comm, remote_port AS server_port,
    count() AS requests, countIf(requests.failed) AS failed,
    sum(coalesce(requests.request_ns, 0)) AS request_ns,
    sum(coalesce(requests.server_ns, 0)) AS server_ns,
    sum(requests.retransmissions) AS retransmissions,
    sum(coalesce(requests.retransmission_wait_ns, 0)) AS retransmission_wait_ns,
    max(coalesce(requests.request_ns, 0)) AS slowest_ns,
    quantilesTDigestState(0.5, 0.9, 0.99)(requests.request_ns) AS quantiles_ns
FROM requests
GROUP BY host, minute, view, protocol, method, resource, status, comm, server_comm, server_port;

CREATE TABLE IF NOT EXISTS connections_by_minute
(
    `host` LowCardinality(String),
    `minute` DateTime('UTC') CODEC(Delta(4), ZSTD(1)),
    `kind` LowCardinality(String),
    `comm` LowCardinality(String),
    `error` LowCardinality(String),
    `ending` LowCardinality(String),
    `events` SimpleAggregateFunction(sum, UInt64),
    `bytes_sent` SimpleAggregateFunction(sum, UInt64),
    `bytes_received` SimpleAggregateFunction(sum, UInt64),
    `data_segs_out` SimpleAggregateFunction(sum, UInt64),
    `total_retrans` SimpleAggregateFunction(sum, UInt64)
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(minute)
ORDER BY (host, minute, kind, comm, error, ending)
TTL minute + INTERVAL 400 DAY
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000;

CREATE MATERIALIZED VIEW IF NOT EXISTS connections_to_minutes TO connections_by_minute AS
SELECT
    host, toStartOfMinute(toDateTime(time, 'UTC')) AS minute, kind,
    coalesce(c.comm, '') AS comm, coalesce(c.error, '') AS error, coalesce(c.ending, '') AS ending,
    count() AS events,
    sumIf(c.bytes_sent, kind = 'close') AS bytes_sent,
    sumIf(c.bytes_received, kind = 'close') AS bytes_received,
    sumIf(c.data_segs_out, kind = 'close') AS data_segs_out,
    sumIf(c.total_retrans, kind = 'close') AS total_retrans
FROM connection_events AS c
WHERE kind != 'state'
GROUP BY host, minute, kind, comm, error, ending;

CREATE TABLE IF NOT EXISTS losses_by_minute
(
    `host` LowCardinality(String),
    `minute` DateTime('UTC') CODEC(Delta(4), ZSTD(1)),
    `kind` LowCardinality(String),
    `comm` LowCardinality(String),
    `remote_ip` LowCardinality(String),
    `cause` LowCardinality(String),
    `reason` LowCardinality(String),
    `outgoing` UInt8,
    `events` SimpleAggregateFunction(sum, UInt64),
    `segs` SimpleAggregateFunction(sum, UInt64),
    `bytes` SimpleAggregateFunction(sum, UInt64),
    `undone` SimpleAggregateFunction(sum, UInt64)
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(minute)
ORDER BY (host, minute, kind, comm, remote_ip, cause, reason, outgoing)
TTL minute + INTERVAL 400 DAY
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000;

CREATE MATERIALIZED VIEW IF NOT EXISTS losses_to_minutes TO losses_by_minute AS
SELECT
    host, toStartOfMinute(toDateTime(time, 'UTC')) AS minute, kind,
    coalesce(l.comm, '') AS comm, remote_ip, coalesce(l.cause, '') AS cause,
    coalesce(l.reason, '') AS reason, coalesce(l.outgoing, 0) AS outgoing,
    count() AS events, sum(l.segs) AS segs, sum(l.bytes) AS bytes,
    sum(coalesce(l.undone, 0)) AS undone
FROM losses AS l
GROUP BY host, minute, kind, comm, remote_ip, cause, reason, outgoing;
