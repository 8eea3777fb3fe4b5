"""The built-in queries over all hosts: those of a recording, in ClickHouse's words, and more."""

from __future__ import annotations

import re

from tcprism.fleet.tables import OF_FAMILY, VIEWS
from tcprism.recording.queries import QUERIES, NamedQuery

_TABLES = ("events", *VIEWS, *(table.name for table in OF_FAMILY.values()))
_LATEST = r"FROM (SELECT * FROM \1 WHERE time > now() - INTERVAL 1 HOUR)"

# What differs: the words, that hosts have each their network namespaces, and that there is no end
# of rows.
_WORDS = (
    # A request of a sample stands for others.
    (
        r"quantile_cont\((request_ns), ([\d.]+)\)",
        r"quantileExactWeighted(\2)(\1, toUInt64(weight))",
    ),
    (r"quantile_cont\((\w+), ([\d.]+)\)", r"quantileExactInclusive(\2)(\1)"),
    (r"\bmode\((\w+)\)", r"topK(1)(\1)[1]"),
    (r"\bnetns, ", "host, netns, "),
    (r"SELECT time, ", "SELECT time, host, "),
    (rf"FROM ({'|'.join(_TABLES)})\b", _LATEST),
)


_HOUR = "now() - INTERVAL 1 HOUR"

_FLEET = {
    "hosts": NamedQuery(
        "which hosts are here, since when, and what they lost",
        """
        SELECT h.host AS host, h.latest AS latest, h.started AS started, h.tcprism AS tcprism,
            h.kernel AS kernel, l.lost AS events_lost, l.dropped AS rows_dropped
        FROM (
            SELECT host, max(time) AS latest, argMax(started, time) AS started,
                argMax(tcprism, time) AS tcprism, argMax(kernel, time) AS kernel
            FROM hosts GROUP BY host) AS h
        LEFT JOIN (
            SELECT host, started,
                sumIf(last, counter IN ('ring_full', 'ring_busy', 'missed')
                    OR counter = 'map_full' AND kind != 'acked') AS lost,
                sumIf(last, counter = 'clickhouse_dropped') AS dropped
            FROM (
                SELECT host, started, kind, counter, max(count) AS last
                FROM ledger GROUP BY host, started, kind, counter)
            GROUP BY host, started) AS l ON l.host = h.host AND l.started = h.started
        ORDER BY host
        """,
    ),
    "clocks": NamedQuery(
        "how far the clocks of two hosts are apart, by what they said to one another in the last"
        " hour: milliseconds, give or take",
        f"""
        SELECT host, other, minute, offset_ns / 1e6 AS other_ahead_ms, error_ns / 1e6 AS error_ms,
            exchanges
        FROM clocks WHERE minute > {_HOUR} ORDER BY host, other, minute LIMIT 200
        """,
    ),
    "both-ends": NamedQuery(
        "the slowest requests that both hosts saw in the last hour: the server's part, the rest,"
        " and the ways there and back, which need the clocks, give or take clock_error_ms",
        f"""
        SELECT r.time AS time, r.host AS host, r.server_host AS server_host,
            r.protocol AS protocol, r.method AS method, r.resource AS resource,
            r.status AS status, r.request_ns / 1e6 AS ms, r.server_ns / 1e6 AS server_ms,
            r.outside_server_ns / 1e6 AS outside_server_ms,
            (r.there_ns - ahead_ns) / 1e6 AS there_ms, (r.back_ns + ahead_ns) / 1e6 AS back_ms,
            k.error_ns / 1e6 AS clock_error_ms,
            if(r.host < r.server_host, k.offset_ns, -k.offset_ns) AS ahead_ns
        FROM request_ends AS r
        LEFT JOIN clocks AS k
            ON k.minute = toStartOfMinute(r.time) AND k.host = least(r.host, r.server_host)
            AND k.other = greatest(r.host, r.server_host)
        WHERE r.time > {_HOUR} AND r.server_time > {_HOUR} - INTERVAL 10 MINUTE
        ORDER BY ms DESC NULLS LAST LIMIT 20
        SETTINGS join_use_nulls = 1
        """,
    ),
    "lost-on-the-way": NamedQuery(
        "segments with payload that one host sent and the other never got, of connections closed"
        " in the last hour, and where they were dropped",
        f"""
        SELECT host, other, count() AS connections, sum(segments_sent) AS sent,
            sum(segments_missing) AS missing, sum(dropped_here) AS dropped_at_sender,
            sum(dropped_there) AS dropped_at_receiver, sum(lost_between) AS lost_between
        FROM lost_on_the_way WHERE time > {_HOUR} AND other_time > {_HOUR}
        GROUP BY host, other ORDER BY missing DESC LIMIT 50
        """,
    ),
    "never-arrived": NamedQuery(
        "requests of the last hour without a whole response of which the server's host, which"
        " watched all requests, saw nothing",
        f"""
        SELECT c.time AS time, c.host AS host, w.host AS server_host, c.protocol AS protocol,
            c.method AS method, c.resource AS resource, c.request_state AS request_state,
            c.remote_ip AS remote_ip, c.remote_port AS remote_port,
            c.retransmissions AS retransmissions
        FROM (
            SELECT * FROM requests
            WHERE time > {_HOUR} AND view = 'client' AND request_state != 'complete') AS c
        INNER JOIN (
            SELECT local_ip, any(e.host) AS host FROM connection_events AS e
            WHERE time > {_HOUR} AND e.host IN (SELECT host FROM hosts WHERE has(kinds, 'recv'))
                AND e.host NOT IN (
                    SELECT host FROM ledger
                    WHERE time > {_HOUR} AND count > 0 AND (counter = 'effort_changes'
                        OR kind IN ('send', 'recv', 'request') AND counter IN (
                            'sampled_out', 'ring_full', 'ring_busy', 'map_full', 'missed')))
            GROUP BY local_ip HAVING uniqExact(e.host) = 1) AS w ON w.local_ip = c.remote_ip
        LEFT ANTI JOIN (
            SELECT * FROM requests WHERE time > {_HOUR} - INTERVAL 10 MINUTE AND view = 'server'
        ) AS s
            ON c.local_ip = s.local_ip AND c.local_port = s.local_port
            AND c.remote_ip = s.remote_ip AND c.remote_port = s.remote_port
            AND c.request_seq = s.request_seq
        ORDER BY time LIMIT 50
        """,
    ),
}


def _translated(query: NamedQuery) -> NamedQuery:
    sql = query.sql
    for pattern, words in _WORDS:
        sql = re.sub(pattern, words, sql)
    return NamedQuery(f"{query.title}, in the last hour", sql)


def fleet_queries() -> dict[str, NamedQuery]:
    """Return the queries by name: of a recording's those that ask for no message or segment."""
    ours = {
        name: query
        for name, query in QUERIES.items()
        if not re.search(r"FROM (messages|segments)\b", query.sql)
    }
    return {name: _translated(query) for name, query in ours.items()} | _FLEET
