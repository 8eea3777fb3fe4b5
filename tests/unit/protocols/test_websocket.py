"""WebSocket: what a real client and server said, lengths of every form, fragments, gaps."""

import pytest

from tcprism.protocols import Exchange
from tcprism.protocols.known import protocols

from .talk import CLIENT, SERVER, Said, Talk, exchanges, recorded

UPGRADE: list[Said] = [
    (CLIENT, b"GET /chat HTTP/1.1\r\nUpgrade: websocket\r\n\r\n"),
    (SERVER, b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"),
]
AT = [1000 + len(UPGRADE[0][1]), 5000 + len(UPGRADE[1][1])]

# What the programs were told to say, with the library websockets 17, and its automatic pongs.
CLIENT_SAID = ["text", "text", "binary", "text", "ping", "text"]
SERVER_SAID = ["text", "text", "binary", "text", "pong", "text", "binary", "ping", "text"]


def frame(side: int, first: int, payload: bytes) -> bytes:
    """Return a frame; a client's has the mask 0xffffffff."""
    size = len(payload)
    if size < 126:
        head = bytes([first, size])
    elif size < 1 << 16:
        head = bytes([first, 126]) + size.to_bytes(2, "big")
    else:
        head = bytes([first, 127]) + size.to_bytes(8, "big")
    if side == SERVER:
        return head + payload
    masked = bytes(byte ^ 0xFF for byte in payload)
    return bytes([head[0], head[1] | 0x80]) + head[2:] + b"\xff\xff\xff\xff" + masked


def messages(found: list[Exchange], side: int) -> list[Exchange]:
    of_client = [one for one in found if one.protocol == "websocket" and one.begin is not None]
    of_server = [one for one in found if one.protocol == "websocket" and one.begin is None]
    return of_client if side == CLIENT else of_server


@pytest.mark.parametrize("session", [0, 1])
def test_what_client_and_server_said(session: int) -> None:
    """The first session compresses and closes well, in the second the server breaks off."""
    found = exchanges(recorded("websocket.txt")[session])
    ends = (
        [["pong", "close"], ["close"]] if session == 0 else [["pong", "text", "close"], ["close"]]
    )
    assert [one.method for one in messages(found, CLIENT)] == CLIENT_SAID + ends[0]
    assert [one.method for one in messages(found, SERVER)] == SERVER_SAID + ends[1]
    closes = [(one.status, one.failed) for one in found if one.method == "close"]
    assert sorted(closes) == (
        [("1000", False)] * 2 if session == 0 else [("1011", False), ("1011", True)]
    )
    assert {one.resource for one in found} == {"/chat?"}
    assert not any(one.answered for one in found if one.protocol == "websocket")


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 200_000])
@pytest.mark.parametrize("side", [CLIENT, SERVER])
def test_messages_are_passed_over_by_their_length(side: int, size: int) -> None:
    talk = Talk(captured=100)
    for end, data in UPGRADE:
        talk.say(end, data)
    data = frame(side, 0x82, bytes(size))
    for _ in range(3):
        talk.say(side, data)
    found = messages(talk.end(), side)
    begins = [one.begin if side == CLIENT else one.response_begin for one in found]
    assert begins == [AT[side] + number * len(data) for number in range(3)]
    assert [one.method for one in found] == ["binary"] * 3
    assert not talk.conversation.gaps


def test_a_ping_amid_fragments_is_not_part_of_the_message() -> None:
    parts = [frame(SERVER, 0x01, b"ab"), frame(SERVER, 0x89, b""), frame(SERVER, 0x80, b"cde")]
    found = messages(exchanges([*UPGRADE, (SERVER, b"".join(parts))], piece=1), SERVER)
    ping, text = found
    assert (ping.method, text.method) == ("ping", "text")
    assert (text.response_begin, text.response_end) == (AT[SERVER], AT[SERVER] + 11)
    assert text.response_bytes == 9


@pytest.mark.parametrize(
    "nonsense",
    [
        frame(SERVER, 0x81, b"not masked"),
        frame(CLIENT, 0x83, b"opcode"),
        frame(CLIENT, 0xA1, b"reserved"),
        frame(CLIENT, 0x09, b"ping in parts"),
        frame(CLIENT, 0x80, b"continues nothing"),
        b"\x81\xfe\x00\x05\xff\xff\xff\xffhello",
    ],
)
def test_what_no_client_sends_is_not_websocket(nonsense: bytes) -> None:
    found = exchanges([*UPGRADE, (CLIENT, nonsense), (CLIENT, frame(CLIENT, 0x81, b"more"))])
    assert [one.protocol for one in found] == ["http"]


def test_a_gap_ends_at_the_next_frame() -> None:
    talk = Talk()
    for end, data in UPGRADE:
        talk.say(end, data)
    talk.say(CLIENT, frame(CLIENT, 0x01, b"begun"))
    talk.skip(CLIENT, 50)
    talk.say(CLIENT, b"\x81\x05 looks like a frame")
    talk.say(CLIENT, frame(CLIENT, 0x80, b"ended"), frame(CLIENT, 0x81, b"next"))
    found = messages(talk.end(), CLIENT)
    assert [(one.method, one.gap) for one in found] == [("text", True), ("text", False)]


def test_it_can_be_chosen_alone() -> None:
    """Then the upgrade is read and not shown."""
    said = [*UPGRADE, (CLIENT, frame(CLIENT, 0x81, b"hi")), (SERVER, frame(SERVER, 0x81, b"ho"))]
    found = exchanges(said, protocols(["websocket"]))
    assert [(one.protocol, one.method, one.resource) for one in found] == [
        ("websocket", "text", "/chat")
    ] * 2
    plain = [(CLIENT, b"GET / HTTP/1.1\r\n\r\n"), (SERVER, b"HTTP/1.0 200 OK\r\n\r\nbody")]
    for cut in (0, 1, 2):
        assert exchanges(plain[:cut], protocols(["websocket"])) == []
