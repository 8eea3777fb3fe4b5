"""Kafka: what librdkafka asked of its mock broker, and what its log says that it sent.

recorded/kafka.txt was captured by tcpdump in a network namespace of its own, while producers and a
consumer of confluent-kafka 2.16 (test.mock.num.brokers=1, debug=protocol) produced three messages
to orders, three to logs with acks=0, and a consumer in the group g read the orders and committed.
"""

from collections import Counter

from tcprism.protocols import Exchange, Match
from tcprism.protocols.kafka import KAFKA

from .talk import CLIENT, SERVER, Said, Talk, exchanges, recorded, told

CONNECTIONS = recorded("kafka.txt")

# "Sent MetadataRequest (v13, 23 bytes @ 0, CorrId 3)" and the like, counted in the log.
SENT = {
    "ApiVersions": 18,
    "Fetch": 5,
    "FindCoordinator": 2,
    "GetTelemetrySubscriptions": 4,
    "Heartbeat": 1,
    "JoinGroup": 1,
    "LeaveGroup": 1,
    "ListOffsets": 4,
    "Metadata": 10,
    "OffsetCommit": 2,
    "OffsetFetch": 1,
    "Produce": 6,
    "SyncGroup": 1,
}
UNANSWERED = {"Produce": 3, "Metadata": 1, "Fetch": 1}  # sent, less received


def everything() -> list[Exchange]:
    found: list[Exchange] = []
    for said in CONNECTIONS:
        talk = Talk()
        for side, data in said:
            talk.say(side, data)
        found += [*talk.end(), *talk.conversation.pending()]
    return found


def test_requests_are_those_that_the_client_logged() -> None:
    found = everything()
    assert Counter(one.method for one in found) == SENT
    assert Counter(one.method for one in found if one.response_begin is None) == UNANSWERED
    assert not any(one.gap for one in found)


def test_topics_and_groups() -> None:
    found = everything()
    named = Counter((one.method, one.resource, one.answered) for one in found if one.resource)
    assert named["Produce", "orders", True] == 3
    assert named["Produce", "logs", False] == 3
    assert named["Fetch", "orders", True] == 5  # by topic id, as Metadata has told it
    assert named["ListOffsets", "orders", True] == 4
    assert {one.resource for one in found if one.method.endswith("Group")} == {"g"}


def test_errors_are_those_of_the_broker() -> None:
    """The mock broker does not know librdkafka's newest ApiVersions: it says error 35."""
    failed = Counter((one.method, one.status) for one in everything() if one.failed)
    assert failed == {("ApiVersions", "UNSUPPORTED_VERSION"): 9}


def test_a_topic_id_that_nobody_has_named() -> None:
    whole = b"".join(data for side, data in CONNECTIONS[8] if side == SERVER)
    place = whole.index(b"\x07orders") + 7
    fetch = next(data for side, data in CONNECTIONS[8] if side == CLIENT and data[4:6] == b"\0\1")
    assert whole[place : place + 16] in fetch
    fetch = fetch.replace(whole[place : place + 16], bytes(range(16)))
    found = exchanges([(CLIENT, fetch), (SERVER, answer(fetch[8:12], bytes(60)))])
    assert told(found)[0][:2] == ("Fetch", "AAECAwQFBgcICQoLDA0ODw")


def answer(number: bytes, body: bytes) -> bytes:
    return (len(body) + 4).to_bytes(4, "big") + number + body


def test_records_need_not_be_captured() -> None:
    talk = Talk(captured=128)
    said: list[Said] = CONNECTIONS[2]
    for side, data in said[:4]:
        talk.part(side, data, len(data))
    produce = next(data for side, data in said if side == CLIENT and data[4:6] == b"\0\0")
    for number in range(3):
        correlation = number.to_bytes(4, "big")
        size = (len(produce) - 4 + 900_000).to_bytes(4, "big")
        talk.say(CLIENT, size + produce[4:8] + correlation + produce[12:] + bytes(900_000))
        talk.say(SERVER, answer(correlation, bytes.fromhex("0002076f726465727302000000000000")))
    assert told(talk.end())[2:] == [("Produce", "orders", "0")] * 3
    assert not talk.conversation.gaps


def test_responses_may_come_in_another_order() -> None:
    said = CONNECTIONS[2]
    asked = [data for side, data in said if side == CLIENT]
    answered = [data for side, data in said if side == SERVER]
    usual = exchanges([(CLIENT, b"".join(asked)), (SERVER, b"".join(answered))])
    other = exchanges([(CLIENT, b"".join(asked)), (SERVER, b"".join(reversed(answered)))])
    assert sorted(told(usual)) == sorted(told(other))
    assert {one.begin for one in usual} == {one.begin for one in other}


def test_every_version_of_the_common_messages() -> None:
    """recorded/kafka_versions.txt has what kafka-python 3.0.12 makes of them.

    All are about orders; the responses say error 6 of Produce and Fetch, 3 of ListOffsets, 15 of
    FindCoordinator (before version 4) and 27 of Heartbeat. OffsetFetch has none.
    """
    status = {
        "Produce": "NOT_LEADER_OR_FOLLOWER",
        "Fetch": "NOT_LEADER_OR_FOLLOWER",
        "ListOffsets": "UNKNOWN_TOPIC_OR_PARTITION",
        "Heartbeat": "REBALANCE_IN_PROGRESS",
    }
    count: Counter[str] = Counter()
    for said in recorded("kafka_versions.txt"):
        parser = KAFKA.parser(False)
        for side, data in said:
            matches = KAFKA.request if side == CLIENT else KAFKA.response
            assert matches(data) is Match.YES
            assert parser.parse(side, data, 0) == len(data)
        (found,) = (*parser.done, *parser.pending())
        count[found.method] += 1
        assert found.resource == "orders"
        assert found.status == status.get(found.method, found.status)
    assert count == {
        "Produce": 14, "Fetch": 19, "Metadata": 14, "FindCoordinator": 7, "ListOffsets": 12,
        "Heartbeat": 5, "OffsetFetch": 11,
    }  # fmt: skip
