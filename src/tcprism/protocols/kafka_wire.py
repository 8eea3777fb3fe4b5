"""Kafka's messages: which exist, and where they name a topic or a group, and report an error."""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct, error

VERSION_MAX = 20  # of any message; none has more than 18 yet

_NAMES = (
    "Produce Fetch ListOffsets Metadata LeaderAndIsr StopReplica UpdateMetadata ControlledShutdown"
    " OffsetCommit OffsetFetch FindCoordinator JoinGroup Heartbeat LeaveGroup SyncGroup"
    " DescribeGroups ListGroups SaslHandshake ApiVersions CreateTopics DeleteTopics DeleteRecords"
    " InitProducerId OffsetForLeaderEpoch AddPartitionsToTxn AddOffsetsToTxn EndTxn"
    " WriteTxnMarkers TxnOffsetCommit DescribeAcls CreateAcls DeleteAcls DescribeConfigs"
    " AlterConfigs AlterReplicaLogDirs DescribeLogDirs SaslAuthenticate CreatePartitions"
    " CreateDelegationToken RenewDelegationToken ExpireDelegationToken DescribeDelegationToken"
    " DeleteGroups ElectLeaders IncrementalAlterConfigs AlterPartitionReassignments"
    " ListPartitionReassignments OffsetDelete DescribeClientQuotas AlterClientQuotas"
    " DescribeUserScramCredentials AlterUserScramCredentials Vote BeginQuorumEpoch EndQuorumEpoch"
    " DescribeQuorum AlterPartition UpdateFeatures Envelope FetchSnapshot DescribeCluster"
    " DescribeProducers BrokerRegistration BrokerHeartbeat UnregisterBroker DescribeTransactions"
    " ListTransactions AllocateProducerIds ConsumerGroupHeartbeat ConsumerGroupDescribe"
    " ControllerRegistration GetTelemetrySubscriptions PushTelemetry AssignReplicasToDirs"
    " ListConfigResources DescribeTopicPartitions ShareGroupHeartbeat ShareGroupDescribe"
    " ShareFetch ShareAcknowledge"
)
NAMES = _NAMES.split()  # by API key
PRODUCE, FETCH, METADATA, API_VERSIONS = 0, 1, 3, 18

# The first version whose strings and arrays are compact, of those that are read here.
_COMPACT_SINCE = {
    0: 9, 1: 12, 2: 6, 3: 9, 8: 8, 9: 6, 10: 3, 11: 6, 12: 4, 13: 4, 14: 4, 15: 5, 17: 99, 18: 3,
    19: 5, 20: 4, 22: 2, 23: 4, 24: 3, 25: 3, 26: 3, 28: 3, 36: 2, 42: 2, 68: 0,
}  # fmt: skip

# The first version whose response begins with the time that the client was held back.
_THROTTLE_SINCE = {
    1: 1, 2: 2, 3: 3, 8: 3, 10: 1, 11: 2, 12: 1, 13: 1, 14: 1, 17: 99, 18: 99, 19: 2, 20: 1,
    22: 0, 25: 0, 26: 0, 36: 99, 68: 0,
}  # fmt: skip

ERRORS = {
    -1: "UNKNOWN_SERVER_ERROR", 1: "OFFSET_OUT_OF_RANGE", 2: "CORRUPT_MESSAGE",
    3: "UNKNOWN_TOPIC_OR_PARTITION", 5: "LEADER_NOT_AVAILABLE", 6: "NOT_LEADER_OR_FOLLOWER",
    7: "REQUEST_TIMED_OUT", 10: "MESSAGE_TOO_LARGE", 14: "COORDINATOR_LOAD_IN_PROGRESS",
    15: "COORDINATOR_NOT_AVAILABLE", 16: "NOT_COORDINATOR", 17: "INVALID_TOPIC_EXCEPTION",
    19: "NOT_ENOUGH_REPLICAS", 20: "NOT_ENOUGH_REPLICAS_AFTER_APPEND", 22: "ILLEGAL_GENERATION",
    25: "UNKNOWN_MEMBER_ID", 27: "REBALANCE_IN_PROGRESS", 29: "TOPIC_AUTHORIZATION_FAILED",
    30: "GROUP_AUTHORIZATION_FAILED", 31: "CLUSTER_AUTHORIZATION_FAILED",
    33: "UNSUPPORTED_SASL_MECHANISM", 35: "UNSUPPORTED_VERSION", 36: "TOPIC_ALREADY_EXISTS",
    45: "OUT_OF_ORDER_SEQUENCE_NUMBER", 47: "INVALID_PRODUCER_EPOCH",
    58: "SASL_AUTHENTICATION_FAILED", 70: "FETCH_SESSION_ID_NOT_FOUND",
    71: "INVALID_FETCH_SESSION_EPOCH", 74: "FENCED_LEADER_EPOCH", 79: "MEMBER_ID_REQUIRED",
    87: "INVALID_RECORD", 89: "THROTTLING_QUOTA_EXCEEDED", 100: "UNKNOWN_TOPIC_ID",
}  # fmt: skip

_INT16, _INT32 = Struct(">h").unpack_from, Struct(">i").unpack_from
_ITEMS_MAX = 10_000


class Short(Exception):
    """There are fewer bytes than are read."""


class Nonsense(Exception):
    """No message looks so."""


class Reader:
    """Reads the fields of a message, one behind the other. Raises Short and Nonsense."""

    __slots__ = ("compact", "data", "place")

    def __init__(self, data: bytes, place: int, compact: bool) -> None:
        self.data, self.place, self.compact = data, place, compact

    def int16(self) -> int:
        """Read two bytes."""
        place, self.place = self.place, self.place + 2
        try:
            value: int = _INT16(self.data, place)[0]
        except error as short:
            raise Short from short
        return value

    def int32(self) -> int:
        """Read four bytes."""
        place, self.place = self.place, self.place + 4
        try:
            value: int = _INT32(self.data, place)[0]
        except error as short:
            raise Short from short
        return value

    def varint(self) -> int:
        """Read an unsigned number of variable length."""
        value = shift = 0
        while True:
            if self.place >= len(self.data):
                raise Short
            byte = self.data[self.place]
            self.place += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
            if shift > 28:
                raise Nonsense

    def skip(self, count: int) -> None:
        """Pass over bytes."""
        self.place += count

    def raw(self, count: int) -> bytes:
        """Read so many bytes."""
        found = self.data[self.place : self.place + count]
        if len(found) < count:
            raise Short
        self.place += count
        return found

    def string(self) -> bytes:
        """Read a string; null is empty."""
        length = self.varint() - 1 if self.compact else self.int16()
        if length > 32_767 or length < -1:
            raise Nonsense
        return self.raw(length) if length > 0 else b""

    def array(self) -> int:
        """Read how many items follow; null is none."""
        count = self.varint() - 1 if self.compact else self.int32()
        if count > _ITEMS_MAX or count < -1:
            raise Nonsense
        return max(count, 0)

    def tags(self) -> None:
        """Pass over tagged fields, which only compact messages have."""
        if not self.compact:
            return
        for _ in range(self.varint()):
            self.varint()
            self.skip(self.varint())
            if self.place > len(self.data):
                raise Short


def is_compact(api: int, version: int) -> bool:
    """Whether a message's header and body have the compact form, where that matters here."""
    return version >= _COMPACT_SINCE.get(api, 99)


Name = tuple[bytes, int]  # a topic's name or identifier, or a group's name; how many there are


def _topics(reader: Reader, by_id: bool, before: int = 0) -> Name:
    count = reader.array()
    if not count:
        return b"", 0
    reader.skip(before)
    return reader.raw(16) if by_id else reader.string(), count


def _produce(reader: Reader, version: int) -> Name:
    if version >= 3:
        reader.string()
    reader.skip(6)
    return _topics(reader, version >= 13)


def _fetch(reader: Reader, version: int) -> Name:
    reader.skip(8 if version >= 15 else 12)
    reader.skip(4 * (version >= 3) + (version >= 4) + 8 * (version >= 7))
    return _topics(reader, version >= 13)


def _list_offsets(reader: Reader, version: int) -> Name:
    reader.skip(4 + (version >= 2))
    return _topics(reader, False)


def _metadata(reader: Reader, version: int) -> Name:
    return _topics(reader, False, 16 * (version >= 10))


def _group(reader: Reader, version: int) -> Name:
    return reader.string(), 1


def _find_coordinator(reader: Reader, version: int) -> Name:
    if version < 4:
        return reader.string(), 1
    reader.skip(1)
    return _topics(reader, False)


def _offset_fetch(reader: Reader, version: int) -> Name:
    return _group(reader, version) if version < 8 else _topics(reader, False)


def _items(reader: Reader, version: int) -> Name:
    return _topics(reader, False)


RESOURCES: dict[int, Callable[[Reader, int], Name]] = {
    0: _produce, 1: _fetch, 2: _list_offsets, 3: _metadata, 8: _group, 9: _offset_fetch,
    10: _find_coordinator, 11: _group, 12: _group, 13: _group, 14: _group, 15: _items,
    17: _group, 19: _items, 22: _group, 25: _group, 26: _group, 28: _group, 42: _items, 68: _group,
}  # fmt: skip


def acknowledgements(reader: Reader, body: int, version: int) -> int:
    """Return how many replicas shall acknowledge what is produced: -1: all; 0: no response."""
    reader.place = body
    if version >= 3:
        reader.string()
    return reader.int16()


def fetch_epoch(reader: Reader, body: int, version: int) -> int:
    """Return which fetch of a session it is; 0, -1: a first or only one, with all topics."""
    reader.place = body + (8 if version >= 15 else 12) + 9
    return reader.int32()


_AT_ONCE = (11, 12, 13, 14, 17, 18, 22, 25, 26, 36, 68)  # the error comes first
_OF_PARTITIONS = (0, 1, 2, 8)


def failure(reader: Reader, api: int, version: int) -> int | None:
    """Return the error that a response reports, 0: none; None: it is not known."""
    if version >= _THROTTLE_SINCE.get(api, 99):
        reader.skip(4)
    if api in _AT_ONCE or (api == 10 and version < 4):
        return reader.int16()
    if api == 1 and version >= 7:
        if code := reader.int16():
            return code
        reader.skip(4)
    if api not in _OF_PARTITIONS:
        return None
    _, topics = _topics(reader, version >= 13 and api in (0, 1))
    partitions = reader.array() if topics else 0
    if not partitions:
        return 0
    reader.skip(4)
    code = reader.int16()
    return code if code or topics == partitions == 1 else None  # others are not looked at


def topic_ids(reader: Reader, version: int) -> list[tuple[bytes, bytes]]:
    """Return the identifiers and names of the topics in a response to Metadata, as far as seen."""
    found: list[tuple[bytes, bytes]] = []
    try:
        reader.skip(4)
        for _ in range(reader.array()):
            reader.skip(4)
            reader.string()
            reader.skip(4)
            reader.string()
            reader.tags()
        reader.string()
        reader.skip(4)
        for _ in range(reader.array()):
            reader.skip(2)
            name = reader.string()
            found.append((reader.raw(16), name))
            reader.skip(1)
            for _ in range(reader.array()):
                reader.skip(14)
                for _ in range(3):
                    reader.skip(4 * reader.array())
                reader.tags()
            reader.skip(4)
            reader.tags()
    except (Short, Nonsense):
        pass
    return found
