"""Event: one record as a Python object, made only when somebody iterates over a batch."""

from base64 import b64encode
from dataclasses import dataclass

from tcprism.events.columns import columns_of
from tcprism.events.kinds import FAMILY_OF_KIND
from tcprism.events.names import endpoint, process

JsonValue = str | int | bool | None
Payload = bytes  # inside Event the name `bytes` is an attribute


@dataclass(frozen=True, slots=True, repr=False)
class Event:
    """One event; an attribute is None when it is unknown or when the kind does not have it.

    docs/events.md explains the attributes, which are the JSON keys. `payload` is bytes here.
    """

    time: str
    ts_ns: int
    kind: str
    pid: int | None
    tid: int | None
    comm: str | None
    uid: int | None
    cgroup_id: int | None
    cgroup: str | None
    container_id: str | None
    container: str | None
    pod_uid: str | None
    unit: str | None
    owner_source: str
    netns: int | None
    socket: int | None
    family: int
    local_ip: str
    local_port: int
    remote_ip: str
    remote_port: int
    bytes: int
    error: str | None
    flags: str | None
    requested: int | None
    duration_ns: int | None
    unread_us: int | None
    seq: int | None
    payload: Payload | None
    payload_text: str | None
    payload_truncated: bool | None
    payload_unavailable: str | None
    send_ts_ns: int | None
    unsent_us: int | None
    unacked_us: int | None
    end_seq: int | None
    ack: int | None
    window: int | None
    segs: int | None
    packets_out: int | None
    ca_state: str | None
    cwnd: int | None
    srtt_us: int | None
    cause: str | None
    attempt: int | None
    icsk_retransmits: int | None
    rto_us: int | None
    rttvar_us: int | None
    ssthresh: int | None
    sacked_out: int | None
    lost_out: int | None
    retrans_out: int | None
    undone: int | None
    outgoing: bool | None
    reason: str | None
    message_pid: int | None
    message_comm: str | None
    message_ts_ns: int | None
    message_offset: int | None
    message_bytes: int | None
    message_text: str | None
    old_state: str | None
    new_state: str | None
    elapsed_ns: int | None
    ending: str | None
    sent: bool | None
    reset_reason: str | None
    bytes_sent: int | None
    bytes_acked: int | None
    bytes_received: int | None
    bytes_retrans: int | None
    busy_us: int | None
    rwnd_limited_us: int | None
    sndbuf_limited_us: int | None
    segs_out: int | None
    segs_in: int | None
    data_segs_out: int | None
    data_segs_in: int | None
    total_retrans: int | None
    dsack_dups: int | None
    reord_seen: int | None
    min_rtt_us: int | None
    delivery_rate: int | None
    congestion: str | None
    state: str | None
    holders: str | None
    age_ns: int | None
    inode: int | None
    last_data_sent_us: int | None
    last_data_recv_us: int | None
    unsent: int | None
    unacked: int | None
    unread: int | None
    snd_wnd: int | None
    rcv_wnd: int | None
    sndbuf: int | None
    rcvbuf: int | None
    mss: int | None
    backlog: int | None
    backlog_limit: int | None
    probes_out: int | None
    nodelay: bool | None

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the attributes that events of this kind have."""
        return tuple(column.name for column in columns_of(FAMILY_OF_KIND[self.kind]))

    def as_dict(self) -> dict[str, JsonValue]:
        """Return the event as the JSON format has it: its kind's keys, the payload in base64."""
        values = {name: getattr(self, name) for name in self.columns}
        if self.payload is not None:
            values["payload"] = b64encode(self.payload).decode("ascii")
        return values

    def __repr__(self) -> str:
        known = [(name, getattr(self, name)) for name in self.columns]
        return (
            f"Event({', '.join(f'{name}={value!r}' for name, value in known if value is not None)})"
        )

    def __str__(self) -> str:
        who = process(self.comm, self.pid)
        local = endpoint(self.local_ip, self.local_port)
        remote = endpoint(self.remote_ip, self.remote_port)
        return f"{self.time} {self.kind} {who} {local} - {remote} {self.bytes} bytes"
