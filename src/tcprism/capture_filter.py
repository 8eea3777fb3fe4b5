"""Capture filters in the syntax of pcap-filter(7): libpcap compiles them, NumPy runs them.

libpcap's compiler makes a program for the classic BPF machine (McCanne and Jacobson, "The BSD
Packet Filter", 1993; linux/filter.h). Such a program only jumps forward, so one pass over its
instructions runs it on all packets of a batch: each works on the packets that have reached it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from ctypes import POINTER, byref, c_char_p, c_int, c_ubyte, c_uint, c_uint32, c_ushort, c_void_p
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

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

Packets = NDArray[np.uint8]
Numbers = NDArray[np.int64]
Mask = NDArray[np.bool_]
_Words = NDArray[np.uint32]


class _Instruction(ctypes.Structure):
    """struct bpf_insn."""

    _fields_ = (("code", c_ushort), ("jt", c_ubyte), ("jf", c_ubyte), ("k", c_uint32))


class _Program(ctypes.Structure):
    """struct bpf_program."""

    _fields_ = (("length", c_uint), ("instructions", POINTER(_Instruction)))


@dataclass(frozen=True, slots=True)
class Load:
    """Bits that a filter looks at in packets of a family: from byte `offset` of the IP header on.

    `mask` has those that it uses, of `size` bytes. IPv4 headers are taken to be without options.
    """

    family: int
    offset: int
    size: int
    mask: int


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: `jt` and `jf` say how many to pass over where a test is true and false."""

    code: int
    jt: int
    jf: int
    k: int


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
        return _Reader(self._instructions).found

    def matches(self, packets: Packets, captured: Numbers, lengths: Numbers) -> Mask:
        """Tell which packets match.

        `packets` has a row of bytes for each, from the IP header on; `captured` says how many of
        them are known, `lengths` how long the packet was on the wire. As in the kernel, a packet
        that ends before a byte that the filter looks at does not match.
        """
        return self.judge(packets, captured, lengths)[0]

    def judge(self, packets: Packets, captured: Numbers, lengths: Numbers) -> tuple[Mask, Mask]:
        """Tell which packets match, and which do not only for a byte that is not known."""
        machine = _Machine(packets, captured, lengths)
        for instruction in self._instructions:
            machine.step(instruction)
        return machine.matched, machine.unknown


# The parts of an instruction's code, linux/bpf_common.h and linux/filter.h.
_LD, _LDX, _ST, _STX, _ALU, _JMP, _RET, _MISC = range(8)
_SIZES = {0x00: 4, 0x08: 2, 0x10: 1}
_IMM, _ABS, _IND, _MEM, _LEN, _MSH = 0x00, 0x20, 0x40, 0x60, 0x80, 0xA0
_X = 0x08  # the second operand is the register X, not the constant
_ACCUMULATOR, _TXA = 0x10, 0x80  # what is returned is A, not the constant; what is moved is X
_JA, _DIV, _MOD, _NEG = 0x00, 0x30, 0x90, 0x80
_SCRATCH_WORDS = 16  # BPF_MEMWORDS
_AND, _RSH, _JEQ, _JSET = 0x50, 0x70, 0x10, 0x40
_ALL = 0xFFFF_FFFF
_IPV4_SIZE = 20  # bytes, without options

_COMPARE: dict[int, Callable[[_Words, _Words], Mask]] = {
    0x10: np.equal,
    0x20: np.greater,
    0x30: np.greater_equal,
    0x40: lambda a, b: (a & b) != 0,
}
_COMPUTE: dict[int, Callable[[_Words, _Words], _Words]] = {
    0x00: np.add,
    0x10: np.subtract,
    0x20: np.multiply,
    0x40: np.bitwise_or,
    0x50: np.bitwise_and,
    0x60: lambda a, b: np.where(b < 32, a << (b & 31), 0).astype(np.uint32),
    0x70: lambda a, b: np.where(b < 32, a >> (b & 31), 0).astype(np.uint32),
    0xA0: np.bitwise_xor,
    _DIV: np.floor_divide,
    _MOD: np.remainder,
}


class _Machine:
    """The registers of all packets, and which of them have reached which instruction."""

    def __init__(self, packets: Packets, captured: Numbers, lengths: Numbers) -> None:
        count = len(packets)
        self._packets, self._captured, self._lengths = packets, captured, lengths
        self._a = np.zeros(count, np.uint32)
        self._x = np.zeros(count, np.uint32)
        self._scratch = np.zeros((_SCRATCH_WORDS, count), np.uint32)
        self._waiting: dict[int, list[NDArray[np.intp]]] = {0: [np.arange(count)]}
        self._at = 0
        self.matched = np.zeros(count, np.bool_)
        self.unknown = np.zeros(count, np.bool_)

    def step(self, one: Instruction) -> None:
        """Run the next instruction on those packets that have reached it."""
        those = np.concatenate(self._waiting.pop(self._at, [np.arange(0)]))
        if len(those):
            _STEPS[one.code & 0x07](self, one, those)
        self._at += 1

    def _go_on(self, those: NDArray[np.intp], over: int = 0) -> None:
        if len(those):
            self._waiting.setdefault(self._at + 1 + over, []).append(those)

    def load(self, one: Instruction, those: NDArray[np.intp]) -> None:
        """A <- a part of the packet, its length, a constant or a scratch word."""
        mode = one.code & 0xE0
        if mode in (_ABS, _IND):
            offsets = np.full(len(those), one.k, np.int64)
            if mode == _IND:
                offsets += self._x[those]
            those = self._fetch(those, offsets, _SIZES[one.code & 0x18])
        else:
            self._a[those] = self._plain(one, those)
        self._go_on(those)

    def load_index(self, one: Instruction, those: NDArray[np.intp]) -> None:
        """X <- a constant, a scratch word, the length, or the length of an IPv4 header."""
        if one.code & 0xE0 == _MSH:
            those = those[self._captured[those] > one.k]
            self._x[those] = (self._packets[those, one.k].astype(np.uint32) & 0x0F) * 4
        else:
            self._x[those] = self._plain(one, those)
        self._go_on(those)

    def _plain(self, one: Instruction, those: NDArray[np.intp]) -> _Words | int:
        mode = one.code & 0xE0
        if mode == _IMM:
            return one.k
        return self._scratch[one.k, those] if mode == _MEM else self._lengths[those].astype("u4")

    def _fetch(self, those: NDArray[np.intp], offsets: Numbers, size: int) -> NDArray[np.intp]:
        """Load `size` bytes in network order; return the packets that have them."""
        inside = offsets + size <= self._captured[those]
        self.unknown[those[~inside & (offsets + size <= self._lengths[those])]] = True
        those, offsets = those[inside], offsets[inside]
        value = np.zeros(len(those), np.uint32)
        for index in range(size):
            value <<= 8
            value |= self._packets[those, offsets + index]
        self._a[those] = value
        return those

    def store(self, one: Instruction, those: NDArray[np.intp]) -> None:
        """A scratch word <- A or X."""
        source = self._a if one.code & 0x07 == _ST else self._x
        self._scratch[one.k, those] = source[those]
        self._go_on(those)

    def compute(self, one: Instruction, those: NDArray[np.intp]) -> None:
        """A <- A and an operand; a division by zero ends with no match."""
        operation = one.code & 0xF0
        if operation == _NEG:
            self._a[those] = -self._a[those]
        else:
            operand = self._operand(one, those)
            if operation in (_DIV, _MOD):
                those, operand = those[operand != 0], operand[operand != 0]
            self._a[those] = _COMPUTE[operation](self._a[those], operand)
        self._go_on(those)

    def jump(self, one: Instruction, those: NDArray[np.intp]) -> None:
        """Go on where a comparison says."""
        if one.code & 0xF0 == _JA:
            self._go_on(those, one.k)
            return
        true = _COMPARE[one.code & 0xF0](self._a[those], self._operand(one, those))
        self._go_on(those[true], one.jt)
        self._go_on(those[~true], one.jf)

    def _operand(self, one: Instruction, those: NDArray[np.intp]) -> _Words:
        return self._x[those] if one.code & _X else np.full(len(those), one.k, np.uint32)

    def end(self, one: Instruction, those: NDArray[np.intp]) -> None:
        """Say whether they match."""
        self.matched[those] = self._a[those] != 0 if one.code & _ACCUMULATOR else one.k != 0

    def move(self, one: Instruction, those: NDArray[np.intp]) -> None:
        """A <- X or X <- A."""
        to, source = (self._a, self._x) if one.code & _TXA else (self._x, self._a)
        to[those] = source[those]
        self._go_on(those)


@dataclass(frozen=True, slots=True)
class _State:
    """What is known before an instruction, however it was reached.

    A may be any of `values`, each shifted right by so many bits, and is certainly the `version`;
    X is certainly the length of an IPv4 header (`behind_ip`).
    """

    families: frozenset[int] = frozenset({4, 6})
    values: frozenset[tuple[Load, int]] = frozenset()
    version: bool = False
    behind_ip: bool = False


class _Reader:
    """Follows what is loaded to where it is used."""

    def __init__(self, instructions: Sequence[Instruction]) -> None:
        self.found: set[Load] = set()
        self._states: dict[int, _State] = {0: _State()}
        for place, one in enumerate(instructions):
            if state := self._states.pop(place, None):
                self._follow(place + 1, one, state)

    def _follow(self, after: int, one: Instruction, state: _State) -> None:
        kind = one.code & 0x07
        if kind == _JMP:
            self._jump(after, one, state)
        elif kind != _RET:
            self._reach(after, self._next(one, state))
        elif one.code & _ACCUMULATOR:
            self._use(state)

    def _reach(self, place: int, state: _State) -> None:
        other = self._states.get(place, state)
        self._states[place] = _State(
            state.families | other.families,
            state.values | other.values,
            state.version and other.version,
            state.behind_ip and other.behind_ip,
        )

    def _next(self, one: Instruction, state: _State) -> _State:
        kind = one.code & 0x07
        if kind == _LD:
            return replace(state, values=_loaded(one, state), version=False)
        if kind == _LDX:
            return replace(state, behind_ip=one.code & 0xE0 == _MSH)
        if kind == _ALU:
            computed, version = self._computed(one, state), _is_version(one, state)
            return replace(state, values=computed, version=version)
        if kind == _MISC and one.code & _TXA:
            return replace(state, values=frozenset(), version=False)
        self._use(state)  # it goes to X, or where it is fetched again
        return replace(state, behind_ip=state.behind_ip and kind != _MISC)

    def _computed(self, one: Instruction, state: _State) -> frozenset[tuple[Load, int]]:
        operation, constant = one.code & 0xF0, not one.code & _X
        if operation == _RSH and constant and one.k < 32:
            return frozenset((load, shift + one.k) for load, shift in state.values)
        if not _is_version(one, state):
            self._use(state, one.k if operation == _AND and constant else _ALL)
        return frozenset()

    def _jump(self, after: int, one: Instruction, state: _State) -> None:
        operation, constant = one.code & 0xF0, not one.code & _X
        if operation == _JA:
            self._reach(after + one.k, state)
            return
        self._use(state, one.k if operation == _JSET and constant else _ALL)
        true = false = state
        if state.version and operation == _JEQ and constant:
            true = replace(state, families=state.families & {one.k >> 4})
            false = replace(state, families=state.families - {one.k >> 4})
        for branch, over in ((true, one.jt), (false, one.jf)):
            if branch.families:
                self._reach(after + over, branch)

    def _use(self, state: _State, mask: int = _ALL) -> None:
        for load, shift in state.values:
            self.found.add(replace(load, mask=load.mask >> shift << shift & mask << shift))


def _is_version(one: Instruction, state: _State) -> bool:
    """Tell whether an operation leaves the version of IP, as it is in the first byte."""
    loaded = {(load.offset, load.size, shift) for load, shift in state.values}
    kept = one.code == _ALU | _AND and one.k == 0xF0
    return kept and (state.version or loaded == {(0, 1, 0)})


def _loaded(one: Instruction, state: _State) -> frozenset[tuple[Load, int]]:
    """Return what is loaded from a packet, where it is known from which place."""
    mode, size = one.code & 0xE0, _SIZES.get(one.code & 0x18, 0)
    if mode != _ABS and not (mode == _IND and state.behind_ip):
        return frozenset()
    begin, families = (0, {4, 6}) if mode == _ABS else (_IPV4_SIZE, {4})
    whole = (1 << 8 * size) - 1
    loads = (Load(each, begin + one.k, size, whole) for each in state.families & families)
    return frozenset((load, 0) for load in loads)


_STEPS = {
    _LD: _Machine.load,
    _LDX: _Machine.load_index,
    _ST: _Machine.store,
    _STX: _Machine.store,
    _ALU: _Machine.compute,
    _JMP: _Machine.jump,
    _RET: _Machine.end,
    _MISC: _Machine.move,
}
