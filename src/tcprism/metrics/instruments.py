"""The instruments, each defined once: Prometheus, OTLP and docs/metrics.md follow from here.

Names of `http`, `db` and `system.network.tcp` are OpenTelemetry's (the last are a proposal:
semantic-conventions#3682); those that begin with `tcprism` are our own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]

# Attributes that say whose it is; one that is not known is left out of a series.
PROCESS = "process.executable.name"
PORT = "server.port"
IDENTITY = (
    PROCESS, "container.name", "k8s.pod.uid", "k8s.namespace.name", "k8s.workload", "systemd.unit",
)  # fmt: skip
OWNER = (*IDENTITY, PORT, "tcprism.peer")
ATTRIBUTES = {
    PROCESS: "the process' name (/proc/PID/comm; OpenTelemetry prefers the name of /proc/PID/exe,"
    " which of a script is its interpreter's)",
    "container.name": "its container: the engine's or the kubelet's name for it, else the first"
    " digits of its id",
    "k8s.pod.uid": "its Kubernetes pod",
    "k8s.namespace.name": "the Kubernetes namespace of the pod, if the container engine tells"
    " (Docker, containerd, CRI-O)",
    "k8s.workload": "what the pod belongs to, as kubectl names it: `deployment/cart`; only if the"
    " labels that the container engine tells (Docker, CRI-O) prove it",
    "systemd.unit": "its systemd unit",
    PORT: "the port that the server listens on; that of a server elsewhere only if it is not one"
    " of those that the kernel gives to clients (ip_local_port_range)",
    "tcprism.peer": "the class of the other end's address: a name from `[peers]`, else `loopback`,"
    " `link-local`, `private` or `public`",
    "network.tcp.handshake.role": "which end this process is: `client`, `server`",
    "network.tcp.retransmit.type": "`fast`, `tail_loss_probe`, `timeout`, `syn`, `syn_ack`,"
    " `unknown`; `spurious`: so many of the others turned out to be needless",
    "network.io.direction": "`transmit` or `receive`",
    "error.type": "why: `refused`, `reset`, `timed_out`, `host_unreachable`, `net_unreachable`,"
    " `_OTHER`; of a request, its status if it failed",
    "tcprism.drop.reason": "the kernel's reason (enum skb_drop_reason)",
    "tcprism.limit": "what held data up: `receive_window` of the other end, `send_buffer` of this"
    " one; `other`: neither, such as the network",
    "tcprism.ending": "how it ended: fin, reset_sent, reset_received, timeout, error, aborted",
    "http.request.method": "the method, `_OTHER` for one that HTTP does not define",
    "http.response.status_code": "the status",
    "rpc.system.name": "`grpc`",
    "rpc.method": "the service and its method, as in `shop.Cart/Add`; `_OTHER` if no server has"
    " such a one",
    "rpc.response.status_code": "the status: OK, NOT_FOUND, ...",
    "db.system.name": "the protocol: postgresql, mysql, redis, ...",
    "db.operation.name": "the statement's or command's name; `_OTHER` for one that failed and was"
    " never done",
    "tcprism.request.protocol": "the protocol that the bytes follow",
    "tcprism.request.part": "the part of the time, as in docs/requests.md",
    "tcprism.request.state": "how much of it was seen, as in docs/requests.md",
    "tcprism.event.kind": "the kind of event",
    "tcprism.event.outcome": "what became of them, a column of the ledger (docs/ledger.md)",
    "tcprism.ledger.count": "a counter of the ledger's remarks",
    "tcprism.metric": "the metric",
    "tcp.state": "the state: ESTABLISHED, CLOSE_WAIT, ...",
}

# Those that OpenTelemetry's conventions have as numbers.
INTEGERS = (PORT, "http.response.status_code")

_HTTP = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_DATABASE = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
_ROUND_TRIP = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
)  # fmt: skip
_LIFE = (0.001, 0.01, 0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 86400.0)

# What a unit is called in Prometheus (1 is so for gauges alone, and we have no other of it); those
# in braces say what is counted, and are left out.
_UNITS = {"s": "seconds", "By": "bytes", "1": "ratio"}


@dataclass(frozen=True, slots=True)
class Instrument:
    """One metric. `needs` are the kinds of events without which it has no values.

    `unit` is one of UCUM's, `buckets` are the upper bounds of a histogram. The values of a counter
    that is `told` are totals that somebody else counts.
    """

    name: str
    kind: Kind
    unit: str
    doc: str
    attributes: tuple[str, ...] = OWNER
    buckets: tuple[float, ...] = ()
    needs: str = ""
    told: bool = False

    @property
    def base(self) -> str:
        """The name in Prometheus, without the suffix of a counter.

        https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/
        """
        name = self.name.replace(".", "_")
        unit = _UNITS.get(self.unit, "")
        return f"{name}_{unit}" if unit and not name.endswith(unit) else name

    @property
    def prometheus(self) -> str:
        """The name in Prometheus."""
        return f"{self.base}_total" if self.kind == "counter" else self.base


def label(attribute: str) -> str:
    """Return the name of an attribute in Prometheus."""
    return attribute.replace(".", "_")


_ROLE = "network.tcp.handshake.role"
_REQUESTS = "requests"

HTTP_SERVER = Instrument(
    "http.server.request.duration", "histogram", "s", "Requests that a process here answered.",
    (*OWNER, "http.request.method", "http.response.status_code", "error.type"), _HTTP, _REQUESTS,
)  # fmt: skip
HTTP_CLIENT = Instrument(
    "http.client.request.duration", "histogram", "s", "Requests that a process here made.",
    HTTP_SERVER.attributes, _HTTP, _REQUESTS,
)  # fmt: skip
DATABASE = Instrument(
    "db.client.operation.duration", "histogram", "s", "Statements that a process here ran.",
    (*OWNER, "db.system.name", "db.operation.name", "error.type"), _DATABASE, _REQUESTS,
)  # fmt: skip
RPC_SERVER = Instrument(
    "rpc.server.call.duration", "histogram", "s", "Calls (gRPC) that a process here answered.",
    (*OWNER, "rpc.system.name", "rpc.method", "rpc.response.status_code", "error.type"), _HTTP,
    _REQUESTS,
)  # fmt: skip
RPC_CLIENT = Instrument(
    "rpc.client.call.duration", "histogram", "s", "Calls (gRPC) that a process here made.",
    RPC_SERVER.attributes, _HTTP, _REQUESTS,
)  # fmt: skip
REQUEST_TIME = Instrument(
    "tcprism.request.time", "counter", "s",
    "The time of requests, by part; the parts of a request add up to its duration.",
    (*OWNER, _ROLE, "tcprism.request.protocol", "tcprism.request.part"), needs=_REQUESTS,
)  # fmt: skip
REQUEST_COUNT = Instrument(
    "tcprism.requests", "counter", "{request}", "Requests of all protocols that were answered.",
    (*OWNER, _ROLE, "tcprism.request.protocol", "error.type"), needs=_REQUESTS,
)  # fmt: skip
REQUESTS_INCOMPLETE = Instrument(
    "tcprism.requests.incomplete", "counter", "{request}",
    "Requests that are in no other metric, as not all of them was seen, or they had no end.",
    (*OWNER, _ROLE, "tcprism.request.protocol", "tcprism.request.state"), needs=_REQUESTS,
)  # fmt: skip
RTT = Instrument(
    "system.network.tcp.rtt", "histogram", "s",
    "Smoothed round-trip time, when a connection ends and, while data flows, at each snapshot.",
    OWNER, _ROUND_TRIP, "close",
)  # fmt: skip
RETRANSMITS = Instrument(
    "system.network.tcp.retransmits", "counter", "{segment}",
    "Segments that were sent again (RetransSegs of /proc/net/snmp).",
    (*OWNER, "network.tcp.retransmit.type"), needs="retransmit",
)  # fmt: skip
RESETS = Instrument(
    "system.network.tcp.resets", "counter", "{reset}", "Resets that were sent and received.",
    (*OWNER, "network.io.direction"), needs="reset",
)  # fmt: skip
FAILURES = Instrument(
    "system.network.tcp.connection.failures", "counter", "{connection}",
    "Attempts to connect that failed.", (*OWNER, _ROLE, "error.type"), needs="connect",
)  # fmt: skip
SUCCESSES = Instrument(
    "system.network.tcp.connection.successes", "counter", "{connection}",
    "Connections that were established.", (*OWNER, _ROLE), needs="connect",
)  # fmt: skip
LIFE = Instrument(
    "system.network.tcp.connection.duration", "histogram", "s",
    "How long connections lasted that ended, from when they were established.",
    (*OWNER, "tcprism.ending"), _LIFE, "close",
)  # fmt: skip
HANDSHAKE = Instrument(
    "system.network.tcp.handshake.duration", "histogram", "s",
    "Time from the call of connect until the connection was established.",
    (*OWNER, _ROLE), _ROUND_TRIP, "connect",
)  # fmt: skip
FLOW_CONTROL = Instrument(
    "system.network.tcp.flow_control.events", "counter", "{event}",
    "Probes of a window that the other end had closed.", OWNER, needs="probe",
)  # fmt: skip
DROPS = Instrument(
    "tcprism.drops", "counter", "{segment}", "Segments that this host dropped.",
    (*OWNER, "network.io.direction", "tcprism.drop.reason"), needs="drop",
)  # fmt: skip
IO = Instrument(
    "tcprism.io", "counter", "By",
    "Payload bytes, at snapshots and when a connection ends; sent ones without repetitions,"
    " received ones with one for the other end's FIN, as the kernel counts them.",
    (*OWNER, "network.io.direction"), needs="close",
)  # fmt: skip
LIMITED = Instrument(
    "tcprism.limited.time", "counter", "s",
    "Time in which connections had data to send, by what held it up.",
    (*OWNER, "tcprism.limit"), needs="close",
)  # fmt: skip
OPEN = Instrument(
    "tcprism.connections", "gauge", "{connection}",
    "Connections that processes have open, at the latest snapshot.",
    (*OWNER, "tcp.state"),
)  # fmt: skip
EVENTS = Instrument(
    "tcprism.events", "counter", "{event}",
    "The ledger: what became of the events of a kind.",
    ("tcprism.event.kind", "tcprism.event.outcome"), told=True,
)  # fmt: skip
LOST = Instrument(
    "tcprism.events.lost", "counter", "{event}",
    "Events that passed the filters and did not arrive, by kind and cause.",
    ("tcprism.event.kind", "tcprism.event.outcome"), told=True,
)  # fmt: skip
COUNTS = Instrument(
    "tcprism.ledger", "counter", "{count}",
    "The other counters of the ledger, of stages and outputs.", ("tcprism.ledger.count",),
    told=True,
)  # fmt: skip
CPU = Instrument(
    "tcprism.cpu.time", "counter", "s",
    "CPU time of tcprism's own process; its BPF programs run in others.", (), told=True,
)  # fmt: skip
MEMORY = Instrument(
    "tcprism.memory.usage", "gauge", "By", "Memory of tcprism itself (VmRSS), rings included.", ()
)
MEMORY_LIMIT = Instrument(
    "tcprism.memory.limit", "gauge", "By",
    "Memory that tcprism keeps to (--max-memory): near it, it lets go of what it keeps.", (),
)  # fmt: skip
BPF = Instrument(
    "tcprism.bpf.run.time", "counter", "s",
    "Time that tcprism's BPF programs took, in the processes that they watch, extrapolated from 20"
    " ms of each second (bpf_stats).",
    (), told=True,
)  # fmt: skip
BUDGET = Instrument(
    "tcprism.budget.usage", "gauge", "1",
    "What tcprism cost in the latest second, of --max-overhead: 1 is all of it.", (),
)  # fmt: skip
EFFORT = Instrument(
    "tcprism.effort.reduction", "gauge", "{step}",
    "How many steps less than everything is recorded, to keep --max-overhead (docs/serve.md).", (),
)  # fmt: skip
OTHER_SERIES = Instrument(
    "tcprism.series.other", "counter", "{observation}",
    "Observations that went to the series `other`, because a metric had as many as it may.",
    ("tcprism.metric",), told=True,
)  # fmt: skip
UNKNOWN_BEFORE = Instrument(
    "tcprism.connections.unaccounted", "counter", "{connection}",
    "Connections that ended, or were too many (more than 262,144) to be followed, and of which"
    " bytes and limited time lack all or a part, as what was counted of them is not known.",
    (), told=True,
)  # fmt: skip

INSTRUMENTS = (
    HTTP_SERVER, HTTP_CLIENT, DATABASE, RPC_SERVER, RPC_CLIENT, REQUEST_COUNT, REQUEST_TIME,
    REQUESTS_INCOMPLETE,
    RTT, RETRANSMITS, RESETS, FAILURES, SUCCESSES, LIFE, HANDSHAKE, FLOW_CONTROL,
    DROPS, IO, LIMITED, OPEN,
    EVENTS, LOST, COUNTS, CPU, MEMORY, MEMORY_LIMIT, BPF, BUDGET, EFFORT, OTHER_SERIES,
    UNKNOWN_BEFORE,
)  # fmt: skip
