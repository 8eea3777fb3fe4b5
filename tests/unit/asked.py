"""A client and a server on one machine: nine requests are answered, the last one is not."""

from __future__ import annotations

from tcprism.events import Batch, Part
from tcprism.events._wire import Cause, EventKind

from .records import deliveries, losses, messages
from .session import CLOCK_OFFSET, START

MS = 1_000_000
SERVER_MS = (10, 20, 95, 40, 50, 60, 70, 80, 90)
COUNT = len(SERVER_MS)
CLIENT = {
    "pid": 812, "tid": 812, "comm": b"curl", "netns": 7, "local_ip": "192.0.2.10",
    "local_port": 45_678, "remote_ip": "192.0.2.20", "remote_port": 80,
}  # fmt: skip
SERVER = {
    "pid": 431, "tid": 431, "comm": b"nginx", "netns": 7, "local_ip": "192.0.2.20",
    "local_port": 80, "remote_ip": "192.0.2.10", "remote_port": 45_678,
}  # fmt: skip
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
FAILURE = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"


def asked() -> list[Batch]:
    """Return a batch a request, that take the server SERVER_MS.

    The fifth one fails, and its response is sent again. Nobody answers the last.
    """
    batches, seq, back = [], 1000, 5000
    for number in range(1, COUNT + 2):
        at = START + number * 500 * MS
        path = f"/item/{number}" if number <= COUNT else "/never"
        request = f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
        response = FAILURE if number == 5 else RESPONSE
        sent = {"kind": EventKind.SEND, "payload": request, "seq": seq}
        events = [{**CLIENT, **sent, "ts_ns": at}]
        events += [{**SERVER, **sent, "kind": EventKind.RECV, "ts_ns": at + MS}]
        acked = {"ts_ns": at + MS, "unsent_us": 0, "unacked_us": 1000, "bytes": len(request)}
        parts: list[Part] = [deliveries({**CLIENT, **acked, "seq": seq})]
        if number <= COUNT:
            said = {"kind": EventKind.SEND, "payload": response, "seq": back}
            end = at + MS + SERVER_MS[number - 1] * MS
            events += [{**SERVER, **said, "ts_ns": end}]
            events += [{**CLIENT, **said, "kind": EventKind.RECV, "ts_ns": end + 2 * MS}]
        if number == 5:
            lost = {"ts_ns": end + MS, "seq": back, "end_seq": back + len(response), "segs": 1}
            parts.append(losses({**SERVER, **lost, "bytes": len(response), "cause": Cause.TLP}))
        batches.append(Batch([messages(*events, payload_class=256), *parts], CLOCK_OFFSET))
        seq, back = seq + len(request), back + len(response)
    return batches
