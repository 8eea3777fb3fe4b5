"""Names for the numbers in records: kinds, flags, errnos, addresses."""

import errno
import socket
from enum import IntEnum, IntFlag
from functools import lru_cache

from tcprism.events._wire import (
    ECN_SHIFT,
    WSCALE_SHIFT,
    Cause,
    Ending,
    MessageFlag,
    OwnerSource,
    PayloadReason,
    SegmentArrival,
    SocketSource,
)

# include/net/tcp_states.h
STATES = (
    "",
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RECV",
    "FIN_WAIT1",
    "FIN_WAIT2",
    "TIME_WAIT",
    "CLOSE",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "CLOSING",
    "NEW_SYN_RECV",
)

CA_STATES = ("Open", "Disorder", "CWR", "Recovery", "Loss")

# Reasons for which the kernel drops what it had already (include/net/dropreason-core.h), or what a
# later segment has overtaken: nothing is lost.
REPETITIONS = ("TCP_OLD_DATA", "TCP_OLD_SEQUENCE", "TCP_OFOMERGE")
OVERTAKEN = ("TCP_OLD_ACK",)

# The kernel's own errnos (include/linux/errno.h), which a hook sees before a signal is delivered.
KERNEL_ERRNOS = {
    512: "ERESTARTSYS",
    513: "ERESTARTNOINTR",
    514: "ERESTARTNOHAND",
    516: "ERESTART_RESTARTBLOCK",
    529: "EIOCBQUEUED",
}


class TcpFlag(IntFlag):
    """Control bits of the TCP header (RFC 9293; AE is the Accurate ECN bit)."""

    FIN = 0x001
    SYN = 0x002
    RST = 0x004
    PSH = 0x008
    ACK = 0x010
    URG = 0x020
    ECE = 0x040
    CWR = 0x080
    AE = 0x100


def ca_state_name(state: int) -> str:
    """Return the name that the kernel's documentation gives a congestion state."""
    return CA_STATES[state] if state < len(CA_STATES) else f"unknown-{state}"


def state_name(state: int) -> str:
    """Return the name of a TCP state."""
    return STATES[state] if state < len(STATES) else f"unknown-{state}"


def reason_name(reason: int) -> str | None:
    """Return why there is no payload, or None when nothing stood in the way."""
    return None if reason == PayloadReason.AVAILABLE else _member_name(PayloadReason, reason)


def owner_source_name(source: int) -> str:
    """Return how an owner is known."""
    return _member_name(OwnerSource, source)


def socket_source_name(source: int) -> str:
    """Return how the connection of a TLS session is known."""
    return _member_name(SocketSource, source)


def cause_name(cause: int) -> str:
    """Return why a segment was sent again."""
    return _member_name(Cause, cause).replace("_", "-")


def arrival_name(arrival: int) -> str:
    """Return where a segment that arrived stands."""
    return _member_name(SegmentArrival, arrival)


def ending_name(ending: int) -> str:
    """Return how a connection ended."""
    return _member_name(Ending, ending)


def _member_name(members: type[IntEnum], number: int) -> str:
    known = number in members.__members__.values()
    return str(members(number).name).lower() if known else f"unknown-{number}"


def errno_name(error: int) -> str | None:
    """Return an errno's name, whatever its sign; None for success, digits for a nameless one."""
    number = abs(error)
    if number == 0:
        return None
    return errno.errorcode.get(number) or KERNEL_ERRNOS.get(number) or str(number)


def tcp_flags_text(flags: int) -> str | None:
    """Return a segment's flags, as in SYN|ACK; None when it has none."""
    return _flags_text(TcpFlag, flags & (1 << WSCALE_SHIFT) - 1)


def ecn_name(flags: int) -> str:
    """Return what the ECN field of a segment's IP header says (RFC 3168), "" for nothing."""
    return ("", "ect1", "ect0", "ce")[flags >> ECN_SHIFT & 3]


def message_flags_text(flags: int) -> str | None:
    """Return a message's flags, as in PEEK|ZEROCOPY; None when it has none."""
    return _flags_text(MessageFlag, flags & ~MessageFlag.SEQ_UNKNOWN)


def _flags_text(names: type[IntFlag], flags: int) -> str | None:
    texts = [str(flag.name) for flag in names if flags & flag]
    rest = flags & ~sum(names)
    if rest:
        texts.append(f"{rest:#x}")
    return "|".join(texts) or None


@lru_cache(maxsize=1 << 14)
def address(family: int, packed: bytes) -> str:
    """Return 16 bytes of address as text; for family 4 the last four count."""
    if family == 4:
        return socket.inet_ntop(socket.AF_INET, packed[12:])
    return socket.inet_ntop(socket.AF_INET6, packed)


def process(comm: str | None, pid: int | None) -> str:
    """Return a process as one text, as in curl[812]; a dash for nobody known."""
    return "-" if pid is None else f"{comm}[{pid}]"


def endpoint(ip: str, port: int) -> str:
    """Return an address and a port as one text, an IPv6 address in brackets."""
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"
