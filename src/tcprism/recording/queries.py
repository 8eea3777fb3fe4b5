"""Queries that ship: name -> what it tells, and the SQL."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NamedQuery:
    """A query over the views of a recording."""

    title: str
    sql: str


QUERIES = {
    "top-talkers": NamedQuery(
        "who sent and received most",
        """
        SELECT comm, pid,
            sum(bytes) FILTER (kind = 'send') AS sent,
            sum(bytes) FILTER (kind = 'recv') AS received,
            count(*) AS calls
        FROM messages WHERE flags IS NULL OR flags NOT LIKE '%PEEK%'
        GROUP BY ALL ORDER BY coalesce(sent, 0) + coalesce(received, 0) DESC LIMIT 20
        """,
    ),
    "retransmits": NamedQuery(
        "what was sent again, by cause and peer",
        """
        SELECT cause, remote_ip, remote_port, any_value(comm) AS comm,
            count(*) AS events, sum(segs) AS segments, sum(bytes) AS bytes
        FROM retransmits WHERE error IS NULL
        GROUP BY cause, remote_ip, remote_port ORDER BY segments DESC LIMIT 50
        """,
    ),
    "slowest-connects": NamedQuery(
        "the connects that took longest, and those that failed",
        """
        SELECT time, comm, pid, remote_ip, remote_port, elapsed_ns / 1e6 AS ms, error
        FROM events WHERE kind = 'connect' ORDER BY elapsed_ns DESC NULLS LAST LIMIT 20
        """,
    ),
    "rtt": NamedQuery(
        "percentiles of the smoothed round-trip time, in microseconds, each second",
        """
        SELECT date_trunc('second', time::TIMESTAMP) AS second, count(*) AS segments,
            round(quantile_cont(srtt_us, 0.5)) AS p50,
            round(quantile_cont(srtt_us, 0.9)) AS p90,
            round(quantile_cont(srtt_us, 0.99)) AS p99
        FROM segments WHERE srtt_us IS NOT NULL GROUP BY 1 ORDER BY 1
        """,
    ),
    "who-talks-to-whom": NamedQuery(
        "which process talks to which peer; the port is the lower one of the two ends",
        """
        SELECT comm, local_ip, remote_ip, least(local_port, remote_port) AS port,
            count(DISTINCT socket) AS sockets, count(*) AS calls, sum(bytes) AS bytes
        FROM messages GROUP BY ALL ORDER BY bytes DESC LIMIT 50
        """,
    ),
}
