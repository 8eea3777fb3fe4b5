"""pcapng blocks of many packets at once (draft-ietf-opsawg-pcapng), as Linux "cooked" captures.

Packets are rows of a table of bytes as wide as the largest needs; what a row does not use is left
out when the table becomes a string of bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tcprism.sinks.pcapng.packets import Numbers, Packets

# A short header with the direction before the IP packet. LINKTYPE_RAW would have none, but libpcap
# 1.10 refuses it in files with several interfaces.
LINKTYPE_LINUX_SLL = 113
NANOSECONDS = 9  # if_tsresol: 10 ** -9 seconds

SECTION, INTERFACE, PACKET = 0x0A0D0D0A, 1, 6
# Apple's: a process, and an option of a packet that names one by its number in the section.
PROCESS, OPTION_PROCESS = 0x80000001, 0x8001
OPTION_END, OPTION_COMMENT, OPTION_NAME, OPTION_FLAGS = 0, 1, 2, 2
OPTION_APPLICATION, OPTION_RESOLUTION = 4, 9

_HEAD = np.dtype(
    [
        ("type", "<u4"),
        ("total", "<u4"),
        ("interface", "<u4"),
        ("high", "<u4"),
        ("low", "<u4"),
        ("captured", "<u4"),
        ("length", "<u4"),
    ]
)
_SLL = np.dtype(
    [
        ("type", ">u2"),
        ("device", ">u2"),
        ("address_length", ">u2"),
        ("address", "(8,)u1"),
        ("protocol", ">u2"),
    ]
)
_IPV4 = np.dtype(
    [
        ("version", "u1"),
        ("tos", "u1"),
        ("length", ">u2"),
        ("id", ">u2"),
        ("fragment", ">u2"),
        ("ttl", "u1"),
        ("protocol", "u1"),
        ("checksum", ">u2"),
        ("addresses", "(8,)u1"),
    ]
)
_IPV6 = np.dtype(
    [
        ("flow", ">u4"),
        ("length", ">u2"),
        ("protocol", "u1"),
        ("hops", "u1"),
        ("addresses", "(32,)u1"),
    ]
)
_TCP = np.dtype(
    [
        ("source", ">u2"),
        ("destination", ">u2"),
        ("seq", ">u4"),
        ("ack", ">u4"),
        ("flags", ">u2"),
        ("window", ">u2"),
        ("checksum", ">u2"),
        ("urgent", ">u2"),
    ]
)
_TO_US, _FROM_US = 0, 4  # include/uapi/linux/if_packet.h
_NO_DEVICE = 0xFFFE  # ARPHRD_NONE: no addresses of a link
_ETHERTYPES = {4: 0x0800, 6: 0x86DD}
_TTL = 64
_DONT_FRAGMENT = 0x4000
_DATA_OFFSET = 10  # bits; it counts 32-bit words
_PROTOCOL_TCP = 6

Table = NDArray[np.uint8]


def option(code: int, value: bytes) -> bytes:
    """Return an option, padded to 32 bits."""
    return struct.pack("<HH", code, len(value)) + value.ljust(_padded(len(value)), b"\0")


def _padded(size: int) -> int:
    return -(-size // 4) * 4


def block(kind: int, body: bytes) -> bytes:
    """Return a block; the body is a whole number of 32-bit words."""
    total = len(body) + 12
    return struct.pack("<II", kind, total) + body + struct.pack("<I", total)


def section(application: str, comment: str = "") -> bytes:
    """Return the block that begins a file."""
    body = struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)
    options = option(OPTION_COMMENT, comment.encode()) if comment else b""
    options += option(OPTION_APPLICATION, application.encode()) + option(OPTION_END, b"")
    return block(SECTION, body + options)


def interface(name: str) -> bytes:
    """Return the block of an interface whose times have nanoseconds."""
    options = option(OPTION_NAME, name.encode()) + option(OPTION_RESOLUTION, bytes([NANOSECONDS]))
    return block(
        INTERFACE, struct.pack("<HHI", LINKTYPE_LINUX_SLL, 0, 0) + options + option(0, b"")
    )


def process(pid: int, name: bytes) -> bytes:
    """Return the block of a process."""
    options = option(OPTION_NAME, name) + option(OPTION_END, b"")
    return block(PROCESS, struct.pack("<I", pid) + options)


def encode(
    packets: Packets, times: Numbers, interfaces: Numbers, options: Sequence[bytes]
) -> bytes:
    """Return the blocks of packets; `times` are nanoseconds since 1970."""
    head, data = _HEAD.itemsize, _packet_table(packets)
    captured = _SLL.itemsize + _ip_sizes(packets) + _tcp_sizes(packets) + packets.captured
    room = -(-captured // 4) * 4
    tails, tail_sizes = _tails(options)
    total = head + room + tail_sizes
    table = np.zeros((len(packets), head + data.shape[1] + tails.shape[1]), np.uint8)
    tails.view("<u4")[np.arange(len(tails)), tail_sizes // 4 - 1] = total
    heads = _fields(table, 0, _HEAD)
    heads["type"], heads["total"], heads["interface"] = PACKET, total, interfaces
    heads["high"], heads["low"] = times >> 32, times & 0xFFFFFFFF
    heads["captured"], heads["length"] = captured, captured - packets.captured + packets.length
    table[:, head : head + data.shape[1]] = data
    table[:, head + data.shape[1] :] = tails
    used = np.zeros(table.shape, np.bool_)
    used[:, : head + data.shape[1]] = np.arange(head + data.shape[1]) < (head + room)[:, None]
    used[:, head + data.shape[1] :] = np.arange(tails.shape[1]) < tail_sizes[:, None]
    return table[used].tobytes()


def ip_packets(packets: Packets) -> tuple[Table, Numbers, Numbers]:
    """Return packets from the IP header on, a row each; their bytes known, and on the wire."""
    headers = _ip_sizes(packets) + _tcp_sizes(packets)
    table = _packet_table(packets)[:, _SLL.itemsize :]
    return table, headers + packets.captured, headers + packets.length


def _tails(options: Sequence[bytes]) -> tuple[Table, Numbers]:
    """Return a table of the options, each with room for the length behind, and the sizes used."""
    sizes = np.array([len(each) + 4 for each in options], np.int64)
    width = int(sizes.max())
    joined = b"".join(each.ljust(width, b"\0") for each in options)
    return np.frombuffer(joined, np.uint8).reshape(-1, width).copy(), sizes


def _fields(table: Table, start: int, dtype: np.dtype[np.void]) -> NDArray[np.void]:
    """View some columns of a table of bytes as a structure."""
    return np.ndarray(
        len(table), dtype, buffer=table.data, offset=start, strides=(table.strides[0],)
    )


def _ip_sizes(packets: Packets) -> Numbers:
    return np.where(packets.event["family"] == 4, _IPV4.itemsize, _IPV6.itemsize)


def _tcp_sizes(packets: Packets) -> Numbers:
    sizes: Numbers = _TCP.itemsize + packets.options_length
    return sizes


def _fill_behind(table: Table, packets: Packets) -> None:
    """Write options and payload behind the headers, without the room that rows do not need."""
    options, payload = packets.options, packets.payload
    used = np.concatenate(
        [
            np.arange(options.shape[1]) < packets.options_length[:, None],
            np.arange(payload.shape[1]) < packets.captured[:, None],
        ],
        axis=1,
    )
    inside = np.arange(table.shape[1]) < (packets.options_length + packets.captured)[:, None]
    table[inside] = np.concatenate([options, payload], axis=1)[used]


def _packet_table(packets: Packets) -> Table:
    """Return a table of packets, each from the first byte of its row, zeros behind."""
    widest = int((packets.options_length + packets.captured).max(initial=0))
    width = _padded(_SLL.itemsize + _IPV6.itemsize + _TCP.itemsize + widest)
    table = np.zeros((len(packets), width), np.uint8)
    for family, header in ((4, _IPV4), (6, _IPV6)):
        which = np.flatnonzero(packets.event["family"] == family)
        if len(which):
            table[which] = _one_family(packets.take(which), family, header, width, widest)
    return table


def _one_family(
    packets: Packets, family: int, header: np.dtype[np.void], width: int, widest: int
) -> Table:
    table = np.zeros((len(packets), width), np.uint8)
    ip, tcp = _SLL.itemsize, _SLL.itemsize + header.itemsize
    data = tcp + _TCP.itemsize
    _fill_behind(table[:, data : data + widest], packets)
    addresses = _ends(packets, "ip", 12 if family == 4 else 0)
    _fill_sll(_fields(table, 0, _SLL), packets, family)
    if family == 4:
        _fill_ipv4(_fields(table, ip, _IPV4), packets, addresses)
    else:
        _fill_ipv6(_fields(table, ip, _IPV6), packets, addresses)
    _fill_tcp(_fields(table, tcp, _TCP), packets)
    whole = packets.captured == packets.length
    segment = table[:, tcp : data + widest]
    sums = _sum_words(segment) + _sum_words(addresses)
    sums += _PROTOCOL_TCP + _tcp_sizes(packets) + packets.length
    _fields(table, tcp, _TCP)["checksum"] = np.where(whole, _folded(sums), 0)
    return table


def _fill_sll(header: NDArray[np.void], packets: Packets, family: int) -> None:
    header["type"] = np.where(packets.outgoing, _FROM_US, _TO_US)
    header["device"] = _NO_DEVICE
    header["protocol"] = _ETHERTYPES[family]


def _ends(packets: Packets, what: str, start: int) -> Table:
    """Return source and destination, side by side, from the byte `start` of each on."""
    local, remote = (packets.event[f"{side}_{what}"][:, start:] for side in ("local", "remote"))
    outgoing = packets.outgoing[:, None]
    pair = np.where(outgoing, local, remote), np.where(outgoing, remote, local)
    return np.ascontiguousarray(np.concatenate(pair, axis=1))


def _fill_ipv4(header: NDArray[np.void], packets: Packets, addresses: Table) -> None:
    header["version"] = 0x45
    header["tos"] = packets.ecn
    header["length"] = _IPV4.itemsize + _tcp_sizes(packets) + packets.length
    header["fragment"] = _DONT_FRAGMENT
    header["ttl"] = _TTL
    header["protocol"] = _PROTOCOL_TCP
    header["addresses"] = addresses
    words = np.ascontiguousarray(header).view(np.uint8).reshape(len(header), -1)
    header["checksum"] = _folded(_sum_words(words))


def _fill_ipv6(header: NDArray[np.void], packets: Packets, addresses: Table) -> None:
    header["flow"] = 6 << 28 | packets.ecn.astype(np.uint32) << 20
    header["length"] = _tcp_sizes(packets) + packets.length
    header["protocol"] = _PROTOCOL_TCP
    header["hops"] = _TTL
    header["addresses"] = addresses


def _fill_tcp(header: NDArray[np.void], packets: Packets) -> None:
    local, remote = packets.event["local_port"], packets.event["remote_port"]
    header["source"] = np.where(packets.outgoing, local, remote)
    header["destination"] = np.where(packets.outgoing, remote, local)
    header["seq"] = packets.seq
    header["ack"] = packets.ack
    header["flags"] = packets.flags | _tcp_sizes(packets) << _DATA_OFFSET
    header["window"] = packets.window


def _sum_words(table: Table) -> Numbers:
    """Return the sum of each row's 16-bit words."""
    if table.shape[1] % 2:
        table = np.pad(table, ((0, 0), (0, 1)))
    words = np.ascontiguousarray(table).view(">u2")
    sums: Numbers = words.sum(axis=1, dtype=np.int64)
    return sums


def _folded(sums: Numbers) -> Numbers:
    """Return the Internet checksum (RFC 1071) of sums of words."""
    for _ in range(3):
        sums = (sums & 0xFFFF) + (sums >> 16)
    return ~sums & 0xFFFF
