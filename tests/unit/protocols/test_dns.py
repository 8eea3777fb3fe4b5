"""DNS over TCP: what dig asked and a real server logged, order, transfers of zones, gaps."""

import struct

import pytest

from tcprism.protocols.dns import DNS

from .talk import CLIENT, SERVER, Talk, exchanges, recorded, told

# dnsmasq 2.90's log of queries, and the status that dig 9.18 printed.
LOGGED = [
    ("A", "a.local.test", "NOERROR"),
    ("A", "a.local.test", "NOERROR"),  # asked as A.local.test
    ("AAAA", "b.local.test", "NOERROR"),
    ("A", "nothing.example", "NXDOMAIN"),
    ("MX", "shop.test", "NOERROR"),
    ("TXT", "shop.test", "NOERROR"),
    ("A", "elsewhere.org", "REFUSED"),
    ("TXT", "version.bind", "NOERROR"),
    ("TYPE999", "a.local.test", "NOERROR"),
]
TRANSFER_BYTES = 653  # dig: "XFR size: 23 records (messages 1, bytes 653)"


def name(text: str) -> bytes:
    labels = [part.encode() for part in text.split(".")]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def message(number: int, text: str, kind: int = 1, flags: int = 0x0100, *records: bytes) -> bytes:
    head = struct.pack(">6H", number, flags, 1, len(records), 0, 0)
    data = head + name(text) + struct.pack(">HH", kind, 1) + b"".join(records)
    return struct.pack(">H", len(data)) + data


def record(kind: int, data: bytes) -> bytes:
    return b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, 60, len(data)) + data


def soa(serial: int) -> bytes:
    return record(6, b"\xc0\x0c\xc0\x0c" + struct.pack(">5I", serial, 1, 1, 1, 1))


def test_what_the_server_logged() -> None:
    found = [one for said in recorded("dns.txt") for one in exchanges(said)]
    assert told(found) == LOGGED
    assert [one.status for one in found if one.failed] == ["REFUSED"]


def test_a_recorded_transfer_of_a_zone() -> None:
    found = [one for said in recorded("dns_transfer.txt") for one in exchanges(said)]
    assert [one.method for one in found] == ["SOA", "AXFR", "A"]
    begin, end = found[1].response_begin, found[1].response_end
    assert begin is not None
    assert end == begin + 2 + TRANSFER_BYTES


@pytest.mark.parametrize("piece", [1, 2, 5, 1000])
def test_answers_come_in_any_order(piece: int) -> None:
    asked = [message(number, f"n{number}.test") for number in (7, 8, 9)]
    answers = [message(number, f"n{number}.test", 1, 0x8180) for number in (9, 7, 8)]
    said = [(CLIENT, b"".join(asked)), (SERVER, b"".join(answers))]
    found = exchanges(said, piece=piece)
    size = len(asked[0])
    assert [(one.resource, one.begin, one.response_begin) for one in found] == [
        ("n9.test", 1000 + 2 * size, 5000),
        ("n7.test", 1000, 5000 + size),
        ("n8.test", 1000 + size, 5000 + 2 * size),
    ]


def test_a_transfer_in_several_messages_ends_with_its_first_record() -> None:
    a = record(1, bytes(4))
    first = message(1, "shop.test", 252, 0x8400, soa(5), a)
    middle = b"\x00\x0c" + struct.pack(">6H", 1, 0x8400, 0, 0, 0, 0)
    last = message(1, "shop.test", 252, 0x8400, a, soa(5))
    said = [(CLIENT, message(1, "shop.test", 252)), (SERVER, first), (SERVER, middle)]
    (found,) = exchanges([*said, (SERVER, last)], piece=7)
    assert (found.response_begin, found.status) == (5000, "NOERROR")
    assert found.response_end == 5000 + len(first + middle + last)
    assert not [one for one in exchanges(said) if one.response_end]


def test_a_gap_loses_only_what_was_in_it() -> None:
    talk = Talk([DNS])
    talk.say(CLIENT, message(1, "a.test"), message(2, "b.test"), message(3, "c.test"))
    talk.say(SERVER, message(1, "a.test", 1, 0x8180))
    talk.skip(SERVER, len(message(2, "b.test")))
    talk.say(SERVER, message(3, "c.test", 1, 0x8183))
    first, third = talk.end()
    assert [(one.resource, one.status, one.gap) for one in (first, third)] == [
        ("a.test", "NOERROR", False),
        ("c.test", "NXDOMAIN", False),
    ]
    (second,) = talk.conversation.pending()
    assert (second.resource, second.gap) == ("b.test", True)


def test_long_answers_are_passed_over() -> None:
    talk = Talk([DNS], captured=100)
    for number in range(3):
        talk.say(CLIENT, message(number, "a.test"))
        talk.say(SERVER, message(number, "a.test", 1, 0x8180, record(16, bytes(9000))))
    found = talk.end()
    assert [one.gap for one in found] == [False] * 3
    assert not talk.conversation.gaps


@pytest.mark.parametrize(
    "nonsense",
    [
        message(1, "a.test", 1, 0x8100),  # a response
        message(1, "a.test", 1, 0x0140),  # the reserved bit
        message(1, "a.test", 1, 0x0100, bytes(11)),  # with an answer
        message(1, "a.test").replace(b"test", b"te\x01t"),
        b"\0\x20" + message(1, "a.test")[2:] + b"\0" * 6,  # longer than its records
    ],
)
def test_what_no_client_sends_is_not_dns(nonsense: bytes) -> None:
    said = [(CLIENT, nonsense), (SERVER, message(1, "a.test", 1, 0x8180))]
    said += [(CLIENT, nonsense)] * 2
    assert not exchanges(said, [DNS])
