-- Both ends of requests and connections, where both hosts see them: they have the same addresses, ports and
-- sequence numbers. Moments of two hosts are told by two clocks; `clocks` says how far apart these are.
-- A time condition on both times keeps a join small.

CREATE OR REPLACE VIEW request_ends AS
SELECT
    c.time AS time, s.time AS server_time, c.host AS host, s.host AS server_host,
    c.protocol AS protocol, c.method AS method, c.resource AS resource, c.status AS status,
    c.failed AS failed, c.comm AS comm, s.server_comm AS server_comm,
    c.pid AS pid, s.server_pid AS server_pid,
    c.local_ip AS local_ip, c.local_port AS local_port,
    c.remote_ip AS remote_ip, c.remote_port AS remote_port,
    c.request_seq AS request_seq, c.response_seq AS response_seq,
    c.request_state AS request_state, s.request_state AS server_state,
    c.request_bytes AS request_bytes, c.response_bytes AS response_bytes,
    c.request_ns AS request_ns,
    c.send_queue_ns AS send_queue_ns, s.server_queue_ns AS server_queue_ns,
    s.server_ns AS server_ns, c.unread_ns AS unread_ns,
    -- Of the request's time, what the server's host did not see: the client's calls, and the way there and back. Each
    -- host's clock measures its own part. Null where calls overlap, so that nothing is left.
    if(c.request_ns >= s.request_ns, c.request_ns - s.request_ns, NULL) AS outside_server_ns,
    -- By two clocks: less how far the server's is ahead (clocks), it is the way there, and the way back.
    toUnixTimestamp64Nano(s.time) - toInt64(s.request_ns)
        - (toUnixTimestamp64Nano(c.time) - toInt64(c.request_ns)) AS there_ns,
    toUnixTimestamp64Nano(c.time) - toUnixTimestamp64Nano(s.time) AS back_ns,
    c.retransmissions AS retransmissions, s.retransmissions AS server_retransmissions,
    c.retransmission_wait_ns AS retransmission_wait_ns,
    s.retransmission_wait_ns AS server_retransmission_wait_ns
FROM requests AS c
INNER JOIN requests AS s
    ON c.local_ip = s.local_ip AND c.local_port = s.local_port
    AND c.remote_ip = s.remote_ip AND c.remote_port = s.remote_port
    AND c.request_seq = s.request_seq
WHERE c.view = 'client' AND s.view = 'server'
    AND (c.response_seq = s.response_seq OR c.response_seq IS NULL OR s.response_seq IS NULL)
    AND abs(dateDiff('second', c.time, s.time)) < 600;

-- What proves how far clocks are apart: the clock of `other` minus that of `host` is at most `bound_ns`, for what
-- happened there happened before what happened here.
CREATE OR REPLACE VIEW clock_bounds AS
SELECT -- the ACK that ends a handshake leaves after the client's end is established
    toStartOfMinute(c.time) AS minute, c.host AS host, s.host AS other,
    toUnixTimestamp64Nano(s.time) - toUnixTimestamp64Nano(c.time) AS bound_ns
FROM connection_events AS c
INNER JOIN connection_events AS s
    ON c.local_ip = s.remote_ip AND c.local_port = s.remote_port
    AND c.remote_ip = s.local_ip AND c.remote_port = s.local_port
    AND c.iss = s.irs AND c.irs = s.iss
WHERE c.kind = 'connect' AND s.kind = 'accept' AND c.error IS NULL AND s.error IS NULL
UNION ALL
SELECT -- a response is read to its end after the server has taken the request's first bytes
    toStartOfMinute(c.time) AS minute, s.host AS host, c.host AS other,
    toUnixTimestamp64Nano(c.time)
        - (toUnixTimestamp64Nano(s.time) - toInt64(s.request_ns)) AS bound_ns
FROM requests AS c
INNER JOIN requests AS s
    ON c.local_ip = s.local_ip AND c.local_port = s.local_port
    AND c.remote_ip = s.remote_ip AND c.remote_port = s.remote_port
    AND c.request_seq = s.request_seq AND c.response_seq = s.response_seq
WHERE c.view = 'client' AND s.view = 'server'
    AND c.request_state = 'complete' AND s.request_state = 'complete';

-- The clock of `other` minus that of `host`, each minute: `offset_ns` give or take `error_ns`. Null where the
-- bounds exclude one another: a clock was set.
CREATE OR REPLACE VIEW clocks AS
SELECT
    minute, host, other, minIf(bound_ns, forwards) AS most_ns, -minIf(bound_ns, NOT forwards) AS least_ns,
    if(most_ns >= least_ns, intDiv(most_ns + least_ns, 2), NULL) AS offset_ns,
    if(most_ns >= least_ns, intDiv(most_ns - least_ns + 1, 2), NULL) AS error_ns,
    count() AS exchanges
FROM (
    SELECT
        b.minute AS minute, least(b.host, b.other) AS host, greatest(b.host, b.other) AS other,
        b.host < b.other AS forwards, b.bound_ns AS bound_ns
    FROM clock_bounds AS b
    WHERE b.host != b.other)
GROUP BY minute, host, other
HAVING countIf(forwards) > 0 AND countIf(NOT forwards) > 0;

-- Each direction of each connection that both ends closed in order: what `host` sent, and what had arrived at `other`
-- when its socket closed. All bytes were acknowledged by then, so what is missing was lost, or
-- was sent again for nothing and came too late to be counted.
CREATE OR REPLACE VIEW connection_ends AS
SELECT
    a.time AS time, b.time AS other_time, a.host AS host, b.host AS other,
    a.comm AS comm, b.comm AS other_comm, a.pid AS pid, b.pid AS other_pid,
    a.local_ip AS local_ip, a.local_port AS local_port,
    a.remote_ip AS remote_ip, a.remote_port AS remote_port,
    addNanoseconds(a.time, -toInt64(a.elapsed_ns)) AS begun,
    addNanoseconds(b.time, -toInt64(b.elapsed_ns)) AS other_begun,
    a.iss AS iss,
    a.bytes_acked AS bytes_acked, a.total_retrans AS total_retrans,
    a.data_segs_out AS segments_sent, b.data_segs_in AS segments_arrived,
    toInt64(a.data_segs_out) - toInt64(b.data_segs_in) AS segments_missing
FROM connection_events AS a
INNER JOIN connection_events AS b
    ON a.local_ip = b.remote_ip AND a.local_port = b.remote_port
    AND a.remote_ip = b.local_ip AND a.remote_port = b.local_port
    AND a.irs = b.iss AND a.iss = b.irs
WHERE a.kind = 'close' AND b.kind = 'close' AND a.ending = 'fin' AND b.ending = 'fin';

-- The same, with where segments with payload were dropped: by `host` on their way out, by `other` on their way in
-- (`drop` events), or in between. What TCP itself throws away has arrived: data_segs_in counts it before
-- (tcp_segs_in()), such as bytes that were sent again for nothing. Null where one of them did not look at drops all
-- the while, or lost some.
-- A segment may come before the socket is established: on another CPU it overtakes the ACK that ends the handshake.
-- Its sequence number says that it is not of an earlier connection.
CREATE OR REPLACE VIEW lost_on_the_way AS
WITH
    looked AS (
        SELECT DISTINCT host FROM hosts
        WHERE has(kinds, 'drop') AND host NOT IN (
            SELECT host FROM ledger
            WHERE kind = 'drop' AND count > 0
                AND counter IN ('ring_full', 'ring_busy', 'map_full', 'missed'))),
    dropped AS (
        SELECT
            host, local_ip, local_port, remote_ip, remote_port, outgoing,
            groupArray(time) AS times, groupArray(segs) AS counts, groupArray(ifNull(seq, 0)) AS seqs
        FROM losses
        WHERE kind = 'drop' AND bytes > 0 AND NOT (
            match(ifNull(reason, ''), '^(TCP_|SOCKET_BACKLOG|SOCKET_RCVBUFF|PROTO_MEM)')
            AND NOT match(ifNull(reason, ''), '^TCP_(CSUM|MD5|AO|AUTH|MINTTL|RFC7323_TW_PAWS)'))
        GROUP BY host, local_ip, local_port, remote_ip, remote_port, outgoing)
SELECT
    e.time AS time, e.other_time AS other_time, e.host AS host, e.other AS other,
    e.comm AS comm, e.other_comm AS other_comm,
    e.local_ip AS local_ip, e.local_port AS local_port,
    e.remote_ip AS remote_ip, e.remote_port AS remote_port,
    e.segments_sent AS segments_sent, e.segments_missing AS segments_missing,
    if(e.begun IS NULL OR e.host NOT IN (SELECT host FROM looked), NULL,
       arraySum(
           (t, n, seq) -> if(
               t <= e.time AND (t >= e.begun OR (
                   t >= e.begun - INTERVAL 1 MINUTE AND toUInt32(seq - e.iss) - 1 < e.bytes_acked)),
               n, 0),
           o.times, o.counts, o.seqs)) AS dropped_here,
    if(e.other_begun IS NULL OR e.other NOT IN (SELECT host FROM looked), NULL,
       arraySum(
           (t, n, seq) -> if(
               t <= e.other_time AND (t >= e.other_begun OR (
                   t >= e.other_begun - INTERVAL 1 MINUTE AND toUInt32(seq - e.iss) - 1 < e.bytes_acked)),
               n, 0),
           i.times, i.counts, i.seqs))
        AS dropped_there,
    segments_missing - toInt64(dropped_here) - toInt64(dropped_there) AS lost_between
FROM connection_ends AS e
LEFT JOIN (SELECT * FROM dropped WHERE outgoing) AS o
    ON o.host = e.host AND o.local_ip = e.local_ip AND o.local_port = e.local_port
    AND o.remote_ip = e.remote_ip AND o.remote_port = e.remote_port
LEFT JOIN (SELECT * FROM dropped WHERE NOT outgoing) AS i
    ON i.host = e.other AND i.local_ip = e.remote_ip AND i.local_port = e.remote_port
    AND i.remote_ip = e.local_ip AND i.remote_port = e.local_port;
