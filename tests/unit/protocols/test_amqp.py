"""AMQP: what pika 1.4 asked of RabbitMQ 3.10, and what it was told.

recorded/amqp.txt is what record.py wrote of three connections: a BlockingConnection with frames of
at most 4,096 bytes that used each method, published with and without confirmation and in a
transaction, was refused a missing queue, a full one and a missing exchange, and consumed five
messages; one with a wrong password; a SelectConnection that published 50 messages at once, which
the broker acknowledged by 8 frames.
"""

from tcprism.protocols import Exchange

from .talk import CLIENT, SERVER, Talk, exchanges, recorded, told

CONNECTIONS = recorded("amqp.txt")


def of(found: list[Exchange], method: str) -> list[tuple[str, str, bool]]:
    return [(one.resource, one.status, one.answered) for one in found if one.method == method]


def test_requests_are_those_of_the_client() -> None:
    found = exchanges(CONNECTIONS[0])
    assert of(found, "basic.publish") == [
        *[("shop/order.new", "", False)] * 3,
        ("shop/order.big", "", False),
        *[("shop/order.sure", "ack", True)] * 3,
        ("orders", "ack", True),
        ("full", "ack", True),
        ("full", "nack", True),
        ("nowhere/x", "404", True),
        ("shop/order.tx", "", False),
    ]
    assert of(found, "basic.deliver") == [
        *[("shop/order.sure", "", False)] * 3,
        ("orders", "", False),
        ("shop/order.tx", "", False),
    ]
    assert of(found, "basic.get") == [
        ("orders", "", True),
        ("orders", "", True),
        ("orders", "get-empty", True),
    ]
    failed = [(one.method, one.resource, one.status) for one in found if one.failed]
    assert failed == [
        ("queue.declare", "missing", "404"),
        ("basic.publish", "full", "nack"),
        ("basic.publish", "nowhere/x", "404"),
    ]
    others = [one for one in found if not one.method.startswith("basic.")]
    assert [one.method for one in others if one.method != "channel.open"] == [
        "connection.start-ok",
        "connection.open",
        "exchange.declare",
        "queue.declare",
        "queue.bind",
        "queue.purge",
        "queue.declare",
        "confirm.select",
        "queue.declare",
        "tx.select",
        "tx.commit",
        "tx.rollback",
        "queue.unbind",
        "queue.delete",
        "queue.delete",
        "exchange.delete",
        "channel.close",
        "connection.close",
    ]
    assert not any(one.gap for one in found)


def test_a_message_ends_with_its_last_frame() -> None:
    said = CONNECTIONS[0]
    sent, told_back = (b"".join(data for its, data in said if its == side) for side in (0, 1))
    found = exchanges(said)
    big = next(one for one in found if one.resource == "shop/order.big")
    assert big.begin is not None
    assert big.end is not None
    assert sent[big.begin - 1000 : big.end - 1000].count(b"y") == 9_000
    assert sent[big.end - 1001] == 0xCE
    got = [one for one in found if one.method == "basic.get"][1]
    assert got.response_begin is not None
    assert got.response_end is not None
    assert told_back[got.response_begin - 5000 : got.response_end - 5000].endswith(b"\1x\xce")


def test_a_refused_connection() -> None:
    (found,) = exchanges(CONNECTIONS[1], show_values=True)
    assert (found.method, found.status, found.failed) == ("connection.start-ok", "403", True)
    assert "wrongpass" not in repr(found)


def test_one_frame_acknowledges_many_messages() -> None:
    found = [one for one in exchanges(CONNECTIONS[2]) if one.method == "basic.publish"]
    assert told(found) == [("basic.publish", "many", "ack")] * 50
    assert len({one.response_begin for one in found}) == 8
    assert [one.begin for one in found] == sorted(one.begin or 0 for one in found)


def frame(kind: int, body: bytes) -> bytes:
    return bytes([kind]) + b"\0\1" + len(body).to_bytes(4, "big") + body + b"\xce"


def test_a_message_that_nobody_gets_is_returned() -> None:
    """As the broker says so; what it confirms does not tell."""
    names = b"\x08NO_ROUTE" + b"\x04shop" + b"\x07nowhere"
    method = bytes((0, 60, 0, 50)) + (312).to_bytes(2, "big") + names
    header = bytes((0, 60, 0, 0)) + (3).to_bytes(8, "big") + bytes(2)
    returned = frame(1, method) + frame(2, header) + frame(3, b"abc")
    found = exchanges([*CONNECTIONS[2], (SERVER, returned)])
    (one,) = (one for one in found if one.method == "basic.return")
    assert (one.resource, one.status, one.failed) == ("shop/nowhere", "312", True)
    assert (one.begin, one.answered) == (None, False)
    assert one.response_begin is not None
    assert one.response_end == one.response_begin + len(returned)


def test_a_connection_joined_late() -> None:
    said = CONNECTIONS[0]
    first = next(at for at, (side, data) in enumerate(said) if b"full" in data)
    found = exchanges(said[first:])
    assert told(found)[0] == ("queue.declare", "full", "")
    late = [one for one in found if one.method == "basic.publish"]
    assert [one.gap for one in late] == [True, True, True, False]  # confirmed or not: not known


def test_bodies_need_not_be_captured() -> None:
    talk = Talk(captured=64)
    for side, data in CONNECTIONS[2][:8]:
        talk.part(side, data, len(data))
    start = len(talk.conversation.done)
    head = bytes.fromhex("01000200000010003c0028000004") + b"shop\x03key\x00\xce"
    content = bytes.fromhex("02000200000" + "00e003c0000000000000001e2400000ce")
    body = bytes.fromhex("030002000" + "1e240") + bytes(123_456) + b"\xce"
    opened = (
        bytes.fromhex("010002000000050014000a00ce"),
        bytes.fromhex("010002000000080014000b00000000ce"),
    )
    talk.say(CLIENT, opened[0])
    talk.say(SERVER, opened[1])
    for _ in range(2):
        talk.say(CLIENT, head + content, body)
    found = talk.end()[start:]
    assert told(found)[1:] == [("basic.publish", "shop/key", "")] * 2
    assert not talk.conversation.gaps


def test_an_acknowledgement_is_lost_after_messages() -> None:
    """The next one is of all messages before, too: those may have been acknowledged earlier."""
    said = CONNECTIONS[2]
    acknowledged = [at for at, (side, data) in enumerate(said) if data[7:11] == b"\x00\x3c\x00\x50"]
    lost = acknowledged[1]
    talk = Talk()
    for at, (side, data) in enumerate(said):
        cut = {lost: 16, lost - 2: 17}.get(at, len(data))
        talk.part(side, data[:cut], len(data))
    true = {(one.begin, one.response_begin) for one in exchanges(said)}
    found = [one for one in talk.end() if one.method == "basic.publish"]
    assert any(one.gap for one in found)
    assert {(one.begin, one.response_begin) for one in found if one.status and not one.gap} <= true
