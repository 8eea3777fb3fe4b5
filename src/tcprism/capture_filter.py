"""Capture filters in the syntax of pcap-filter(7): libpcap compiles them, NumPy runs them.

libpcap's compiler makes a program for the classic BPF machine (classic_bpf.py).
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import POINTER, byref, c_char_p, c_int, c_ubyte, c_uint, c_uint32, c_ushort, c_void_p
from functools import cache

from tcprism.classic_bpf import Instruction, Load, Machine, Mask, Numbers, Packets, Reader
from tcprism.errors import LibraryMissing, UsageError
from tcprism.events.escape import escape

SONAME = "libpcap.so.0.8"  # Debian's and Ubuntu's name; libpcap.so.1 elsewhere
SONAMES = (SONAME, "libpcap.so.1")
INSTALL = (
    "install it: `apt-get install libpcap0.8` (Debian, Ubuntu), `dnf install libpcap` (Fedora),"
    " `pacman -S libpcap` (Arch)"
)
LONGEST = 4096  # characters of an expression

_RAW = 12  # DLT_RAW: a packet begins with its IP header
_WHOLE = 65_535  # bytes of a packet
_ANY_NETMASK = 0xFFFFFFFF  # PCAP_NETMASK_UNKNOWN
_OPTIMIZE = 1


class _Instruction(ctypes.Structure):
    """struct bpf_insn."""

    _fields_ = (("code", c_ushort), ("jt", c_ubyte), ("jf", c_ubyte), ("k", c_uint32))


class _Program(ctypes.Structure):
    """struct bpf_program."""

    _fields_ = (("length", c_uint), ("instructions", POINTER(_Instruction)))


def compiled(expression: str) -> CaptureFilter:
    """Compile an expression.

    Raises UsageError with libpcap's reason where it refuses the expression, LibraryMissing without
    libpcap.
    """
    if len(expression) > LONGEST:
        raise UsageError(f"a capture filter has at most {LONGEST} characters")
    pcap = _libpcap()
    handle = pcap.pcap_open_dead(_RAW, _WHOLE)
    program = _Program()
    try:
        text = expression.encode("utf-8", "surrogateescape")
        if b"\0" in text:
            raise UsageError("a capture filter cannot contain a NUL byte")
        if pcap.pcap_compile(handle, byref(program), text, _OPTIMIZE, _ANY_NETMASK):
            reason = escape(pcap.pcap_geterr(handle))
            raise UsageError(f'the capture filter "{escape(text)}" is not understood: {reason}')
        instructions = [
            Instruction(one.code, one.jt, one.jf, one.k)
            for one in program.instructions[: program.length]
        ]
        pcap.pcap_freecode(byref(program))
    finally:
        pcap.pcap_close(handle)
    return CaptureFilter(instructions)


@cache
def _libpcap() -> ctypes.CDLL:
    for name in SONAMES:
        try:
            pcap = ctypes.CDLL(name)
        except OSError:
            continue
        pcap.pcap_open_dead.restype = c_void_p
        pcap.pcap_open_dead.argtypes = (c_int, c_int)
        pcap.pcap_compile.argtypes = (c_void_p, POINTER(_Program), c_char_p, c_int, c_uint32)
        pcap.pcap_geterr.restype = c_char_p
        pcap.pcap_geterr.argtypes = (c_void_p,)
        pcap.pcap_freecode.argtypes = (POINTER(_Program),)
        pcap.pcap_close.argtypes = (c_void_p,)
        return pcap
    raise LibraryMissing(f"capture filters need libpcap; {INSTALL}")


class CaptureFilter:
    """A compiled filter. It tells which packets match."""

    def __init__(self, instructions: Sequence[Instruction]) -> None:
        self._instructions = tuple(instructions)

    @property
    def loads(self) -> set[Load]:
        """Return which bits of a packet the filter uses, but those that tell IPv4 from IPv6.

        None are told of where the packet says at which place they are.
        """
        return Reader(self._instructions).found

    def matches(self, packets: Packets, captured: Numbers, lengths: Numbers) -> Mask:
        """Tell which packets match.

        `packets` has a row of bytes for each, from the IP header on; `captured` says how many of
        them are known, `lengths` how long the packet was on the wire. As in the kernel, a packet
        that ends before a byte that the filter looks at does not match.
        """
        return self.judge(packets, captured, lengths)[0]

    def judge(
        self, packets: Packets, captured: Numbers, lengths: Numbers, with_options: bool = True
    ) -> tuple[Mask, Mask]:
        """Tell which packets match, and which do not only for a byte that is not known.

        Without the options of TCP, neither are lengths.
        """
        machine = Machine(packets, captured, lengths, with_options)
        for instruction in self._instructions:
            machine.step(instruction)
        return machine.matched, machine.unknown
