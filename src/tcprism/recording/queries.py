"""The built-in queries: name -> title and SQL."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NamedQuery:
    """A query over the views of a recording."""

    title: str
    sql: str


# The server's port is the one that somebody listens on (a LISTEN in a snapshot, an accept) or
# connects to. Where neither was seen, the lower one is rarely the ephemeral one.
_SERVICES = """
        WITH listening AS (
            SELECT DISTINCT netns, local_port FROM events
            WHERE kind = 'accept' OR kind = 'snapshot' AND state = 'LISTEN'),
        called AS (
            SELECT DISTINCT netns, remote_ip, remote_port FROM events WHERE kind = 'connect')"""
_SERVICE_PORT = """CASE
                WHEN (netns, local_port) IN (SELECT * FROM listening) THEN local_port
                WHEN (netns, remote_ip, remote_port) IN (SELECT * FROM called) THEN remote_port
                WHEN (netns, remote_port) IN (SELECT * FROM listening) THEN remote_port
                ELSE least(local_port, remote_port) END"""

QUERIES = {
    "top-talkers": NamedQuery(
        "who sent and received most",
        """
        SELECT comm, pid,
            sum(bytes) FILTER (WHERE kind = 'send') AS sent,
            sum(bytes) FILTER (WHERE kind = 'recv') AS received,
            count(*) AS calls
        FROM messages WHERE flags IS NULL OR flags NOT LIKE '%PEEK%'
        GROUP BY ALL ORDER BY coalesce(sent, 0) + coalesce(received, 0) DESC LIMIT 20
        """,
    ),
    "retransmits": NamedQuery(
        "what was retransmitted, by cause, peer and the server's port",
        f"""{_SERVICES}
        SELECT cause, remote_ip, {_SERVICE_PORT} AS service_port, any_value(comm) AS comm,
            count(*) AS events, sum(segs) AS segments, sum(bytes) AS bytes
        FROM retransmits WHERE error IS NULL
        GROUP BY cause, remote_ip, service_port ORDER BY segments DESC LIMIT 50
        """,
    ),
    "slowest-connects": NamedQuery(
        "the connects that took longest, and those that failed",
        """
        SELECT time, comm, pid, remote_ip, remote_port, elapsed_ns / 1e6 AS ms, error
        FROM events WHERE kind = 'connect' ORDER BY elapsed_ns DESC NULLS LAST LIMIT 20
        """,
    ),
    "slowest-requests": NamedQuery(
        "the slowest requests, and which part of their time was the largest",
        """
        SELECT time, protocol, method, resource, status, comm, server_comm, remote_ip, remote_port,
            request_ns / 1e6 AS ms, slowest_part, retransmissions, retransmission_wait_ns / 1e6
                AS retransmission_wait_ms
        FROM requests ORDER BY request_ns DESC NULLS LAST LIMIT 20
        """,
    ),
    "requests-by-route": NamedQuery(
        "requests by route: how many, how many failed, how long they took",
        """
        SELECT protocol, method, resource, sum(weight) AS requests,
            coalesce(sum(weight) FILTER (WHERE failed), 0) AS failed,
            quantile_cont(request_ns, 0.5) / 1e6 AS p50_ms,
            quantile_cont(request_ns, 0.99) / 1e6 AS p99_ms,
            max(request_ns) / 1e6 AS max_ms, mode(slowest_part) AS mostly
        FROM requests GROUP BY ALL ORDER BY sum(request_ns) DESC LIMIT 50
        """,
    ),
    "failed-requests": NamedQuery(
        "requests that failed or had no response",
        """
        SELECT time, protocol, method, resource, status, request_state, comm, remote_ip, remote_port
        FROM requests WHERE failed OR request_state IN ('pending', 'partial')
        ORDER BY time LIMIT 50
        """,
    ),
    "requests-hurt-by-retransmission": NamedQuery(
        "requests that waited for retransmissions, and why those were sent",
        """
        SELECT time, protocol, method, resource, comm, remote_ip, remote_port,
            retransmissions, retransmission_causes, retransmission_wait_ns / 1e6 AS waited_ms,
            request_ns / 1e6 AS ms
        FROM requests WHERE retransmissions > 0
        ORDER BY retransmission_wait_ns DESC NULLS LAST LIMIT 50
        """,
    ),
    "slowest-answers": NamedQuery(
        "the slowest answers, from the last byte of the request to the first of the answer,"
        " timed at the client and at the server",
        f"""{_SERVICES},
        turns AS (
            SELECT *, {_SERVICE_PORT} AS service_port, lag(kind) OVER calls AS before,
                lag(ts_ns) OVER calls AS asked_ns, lag(payload_text) OVER calls AS request
            FROM messages
            WHERE bytes > 0 AND (flags IS NULL OR flags NOT LIKE '%PEEK%')
            WINDOW calls AS (
                PARTITION BY netns, scope_id, socket, local_ip, local_port, remote_ip, remote_port
                ORDER BY ts_ns))
        SELECT time, comm, pid, if(kind = 'recv', 'client', 'server') AS side,
            remote_ip, service_port, round((ts_ns - asked_ns) / 1e6, 3) AS ms, request
        FROM turns
        WHERE kind = 'recv' AND before = 'send' AND service_port = remote_port
            OR kind = 'send' AND before = 'recv' AND service_port = local_port
        ORDER BY ms DESC LIMIT 20
        """,
    ),
    "rtt": NamedQuery(
        "percentiles of the smoothed round-trip time per second, in microseconds",
        """
        SELECT date_trunc('second', time::TIMESTAMP) AS second, count(*) AS segments,
            round(quantile_cont(srtt_us, 0.5)) AS p50,
            round(quantile_cont(srtt_us, 0.9)) AS p90,
            round(quantile_cont(srtt_us, 0.99)) AS p99
        FROM segments WHERE srtt_us IS NOT NULL GROUP BY 1 ORDER BY 1
        """,
    ),
    "who-talks-to-whom": NamedQuery(
        "which process talks to which peer, by the server's port",
        f"""{_SERVICES}
        SELECT comm, local_ip, remote_ip, {_SERVICE_PORT} AS service_port,
            count(DISTINCT socket) AS sockets, count(*) AS calls, sum(bytes) AS bytes
        FROM messages GROUP BY ALL ORDER BY bytes DESC LIMIT 50
        """,
    ),
}
