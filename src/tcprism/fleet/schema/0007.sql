-- A request of a sample counts for those that it stands for, in quantiles, too. Minutes from before this version have
-- `quantiles_ns` instead, which are those of the sample.
ALTER TABLE requests_by_minute ADD COLUMN IF NOT EXISTS
    `weighted_quantiles_ns` AggregateFunction(quantilesTDigestWeighted(0.5, 0.9, 0.99), Nullable(UInt64), UInt64);

ALTER TABLE requests_to_minutes MODIFY QUERY
SELECT
    host, toStartOfMinute(toDateTime(time, 'UTC')) AS minute,
    coalesce(requests.view, '') AS view, coalesce(requests.protocol, '') AS protocol,
    coalesce(requests.method, '') AS method, coalesce(requests.resource, '') AS resource,
    coalesce(requests.status, '') AS status, coalesce(requests.comm, '') AS comm,
    coalesce(requests.server_comm, '') AS server_comm, remote_port AS server_port,
    sum(requests.weight) AS requests, sumIf(requests.weight, requests.failed) AS failed,
    sum(coalesce(requests.request_ns, 0) * requests.weight) AS request_ns,
    sum(coalesce(requests.server_ns, 0) * requests.weight) AS server_ns,
    sum(requests.retransmissions * requests.weight) AS retransmissions,
    sum(coalesce(requests.retransmission_wait_ns, 0) * requests.weight) AS retransmission_wait_ns,
    max(coalesce(requests.request_ns, 0)) AS slowest_ns,
    quantilesTDigestWeightedState(0.5, 0.9, 0.99)(
        requests.request_ns, toUInt64(requests.weight)) AS weighted_quantiles_ns
FROM requests
GROUP BY host, minute, view, protocol, method, resource, status, comm, server_comm, server_port;
