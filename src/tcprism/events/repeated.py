"""What a stage adds to a retransmission: the write that it repeats, and the ACKs that caused it."""

COLUMNS = (
    (
        "duplicate_acks",
        "integer",
        "retransmit, cause fast: how many duplicate ACKs were seen to arrive since its first byte"
        " was last sent: of that byte (RFC 5681), or with SACK of later ones (RFC 6675); null"
        " where none was seen, as without the kind receive",
    ),
    (
        "sack_blocks",
        "string",
        "retransmit: the later bytes that their SACK blocks told of, as in 1001:2001, 3001:4001, at"
        " most 16 ranges, the lowest; null without --options",
    ),
    ("duplicate_ack_first_ts_ns", "integer", "retransmit: ts_ns of the first of them"),
    ("duplicate_ack_last_ts_ns", "integer", "retransmit: ts_ns of the last of them"),
    ("message_pid", "integer", "retransmit: pid of the send that wrote the bytes"),
    ("message_comm", "string", "retransmit: the thread name of the send"),
    (
        "message_ts_ns",
        "integer",
        "retransmit: ts_ns of the send that wrote the first byte; null until that send returns",
    ),
    ("message_offset", "integer", "retransmit: offset of the segment in that send, bytes"),
    ("message_bytes", "integer", "retransmit: how many bytes that send wrote"),
    ("message_text", "string", "retransmit: the first bytes of that send, as payload_text"),
)
