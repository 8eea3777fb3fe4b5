"""MQTT: what mosquitto's clients asked of mosquitto 2.0.11, and what its log says of it.

recorded/mqtt.txt is what record.py wrote while, for -V mqttv311 and mqttv5,

    printf 'one\\ntwo\\nthree\\n' | mosquitto_pub -i press -q 0 (then 1, 2) -t plant/7/heat -l
    mosquitto_pub -i press -P wrong -q 1 -t plant/7/heat -m x
    mosquitto_pub -i press -q 1 -t secret/7 -m x
    mosquitto_sub -i gauge -q 2 -t plant/+ -t plant/# -t secret/# -U other -C 2
    mosquitto_sub -i idle -k 5 -t plant/+ -W 7

ran as a user who may use plant/# only; another client published two messages to the gauge.
"""

import pytest

from tcprism.protocols import Match
from tcprism.protocols.mqtt import MQTT

from .talk import CLIENT, SERVER, Talk, exchanges, recorded, told

BYE = ("DISCONNECT", "", "")


def hello(name: str, status: str = "0") -> tuple[str, str, str]:
    return ("CONNECT", name, status)


def published(status: str) -> list[tuple[str, str, str]]:
    return [("PUBLISH", "plant/7/heat", status)] * 3


IDLE = [hello("idle"), ("SUBSCRIBE", "plant/+", "0"), ("PINGREQ", "", "0"), BYE]
FILTERS = "plant/+, plant/#, secret/#"
EIGHT, NINE = (("DELIVER", f"plant/{number}", "") for number in (8, 9))
# As the log says: "Sending PUBACK to press (m1, rc0)", "Sending CONNACK to 127.0.0.1 (0, 5)".
VERSION_3 = [
    [hello("press"), *published(""), BYE],
    [hello("press"), *published("0"), BYE],
    [hello("press"), *published("0"), BYE],
    [hello("press", "5")],
    [hello("press"), ("PUBLISH", "secret/7", "0"), BYE],
    [hello("gauge"), ("SUBSCRIBE", FILTERS, "2"), ("UNSUBSCRIBE", "other", "0"), EIGHT, NINE, BYE],
    IDLE,
]
VERSION_5 = [
    [hello("press"), *published(""), BYE],
    [hello("press"), *published("16"), BYE],  # no matching subscribers
    [hello("press"), *published("0"), BYE],
    [hello("press", "0x87")],
    [hello("press"), ("PUBLISH", "secret/7", "0x87"), BYE],
    [
        hello("gauge"),
        ("SUBSCRIBE", FILTERS, "2"),
        ("UNSUBSCRIBE", "other", "17"),
        EIGHT,
        EIGHT,
        BYE,
    ],
    IDLE[:-1],  # the recording ends before
]


def test_requests_are_those_that_mosquitto_logged() -> None:
    found = [exchanges(said) for said in recorded("mqtt.txt")]
    assert [told(one) for one in found] == VERSION_3 + VERSION_5
    failed = [one.status for talk in found for one in talk if one.failed]
    assert failed == ["5", "0x87", "0x87"]
    unanswered = {one.method for talk in found for one in talk if not one.answered}
    assert unanswered == {"PUBLISH", "DELIVER", "DISCONNECT"}


def test_the_password_is_never_shown() -> None:
    found = [exchanges(said, show_values=True) for said in recorded("mqtt.txt")]
    assert "letmein" not in repr(found)


def test_a_message_of_quality_2_ends_with_its_completion() -> None:
    said = recorded("mqtt.txt")[2]
    answers = b"".join(data for side, data in said if side == SERVER)
    received, completed = (answers.index(bytes((kind, 2, 0, 2))) for kind in (0x50, 0x70))
    second = exchanges(said)[2]
    assert second.response_begin == 5000 + received
    assert second.response_end == 5000 + completed + 4


@pytest.mark.parametrize("number", [5, 6, 12, 13])
def test_a_connection_joined_late(number: int) -> None:
    said = recorded("mqtt.txt")[number]
    assert told(exchanges(said[2:])) == told(exchanges(said))[1:]


def test_a_payload_need_not_be_captured() -> None:
    talk = Talk(captured=64)
    for side, data in recorded("mqtt.txt")[1][:2]:
        talk.say(side, data)
    for number in (b"\0\1", b"\0\2"):
        talk.say(CLIENT, b"\x32\xc4\x84\x3d\x00\x04tick" + number + bytes(999_994 + 2))
        talk.say(SERVER, b"\x40\x02" + number)
    assert told(talk.end())[1:] == [("PUBLISH", "tick", "0")] * 2
    assert not talk.conversation.gaps


def test_topic_aliases_of_version_5() -> None:
    talk = Talk([MQTT])
    for side, data in recorded("mqtt.txt")[8][:2]:
        talk.say(side, data)
    talk.say(CLIENT, b"\x30\x0a\x00\x04tick\x03\x23\x00\x07")
    talk.say(CLIENT, b"\x30\x08\x00\x00\x05\x01\x01\x23\x00\x07")
    assert told(talk.end())[1:] == [("PUBLISH", "tick", "")] * 2


def test_nobody_knows_which_end_publishes() -> None:
    """A broker delivers with the same bytes as a client publishes."""
    talk = Talk()
    talk.say(CLIENT, b"\x32\x0a\x00\x04tick\x00\x01hi")
    talk.say(SERVER, b"\x40\x02\x00\x01")
    assert talk.conversation.parser is None


def test_what_unsubscribes_from_no_text_is_no_mqtt() -> None:
    """Among 1 GB of random bytes these were taken for it once."""
    begun = bytes.fromhex("a2c8125f5e0d81fdecb65902a4e354a672ba8b1e0f23f596")
    assert MQTT.request(begun + bytes(range(256)) * 4) is Match.NO
