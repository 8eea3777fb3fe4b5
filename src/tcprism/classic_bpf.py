"""The classic BPF machine: runs a program on packets, and tells what of them it looks at.

McCanne and Jacobson, "The BSD Packet Filter", 1993; linux/filter.h. The programs that libpcap makes
only jump forward, so one pass over the instructions runs one on all packets of a batch: each
instruction works on the packets that have reached it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Packets = NDArray[np.uint8]
Numbers = NDArray[np.int64]
Mask = NDArray[np.bool_]
_Words = NDArray[np.uint32]


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


class Machine:
    """The registers of all packets, and which of them have reached which instruction."""

    def __init__(
        self, packets: Packets, captured: Numbers, lengths: Numbers, with_options: bool
    ) -> None:
        count = len(packets)
        self._packets, self._captured, self._lengths = packets, captured, lengths
        self._with_options = with_options
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
            those = self._without_length(one, those)
            self._a[those] = self._plain(one, those)
        self._go_on(those)

    def load_index(self, one: Instruction, those: NDArray[np.intp]) -> None:
        """X <- a constant, a scratch word, the length, or the length of an IPv4 header."""
        if one.code & 0xE0 == _MSH:
            those = those[self._captured[those] > one.k]
            self._x[those] = (self._packets[those, one.k].astype(np.uint32) & 0x0F) * 4
        else:
            those = self._without_length(one, those)
            self._x[those] = self._plain(one, those)
        self._go_on(those)

    def _without_length(self, one: Instruction, those: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return the packets that go on; none if the length is needed and not known."""
        if one.code & 0xE0 != _LEN or self._with_options:
            return those
        self.unknown[those] = True
        return those[:0]

    def _plain(self, one: Instruction, those: NDArray[np.intp]) -> _Words | int:
        mode = one.code & 0xE0
        if mode == _IMM:
            return one.k
        return self._scratch[one.k, those] if mode == _MEM else self._lengths[those].astype("u4")

    def _fetch(self, those: NDArray[np.intp], offsets: Numbers, size: int) -> NDArray[np.intp]:
        """Load `size` bytes in network order; return the packets that have them."""
        inside = offsets + size <= self._captured[those]
        missing = ~inside & (offsets + size <= self._lengths[those])
        if not self._with_options:
            missing |= _depends_on_options(self._packets[those, 0] >> 4, offsets, offsets + size)
            inside &= ~missing
        self.unknown[those[missing]] = True
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


def _depends_on_options(version: Packets, begin: Numbers, end: Numbers) -> Mask:
    """Tell which bytes are a length, or behind TCP's header without options."""
    length, tcp = np.where(version == 4, 2, 4), np.where(version == 4, _IPV4_SIZE, 40)
    data_offset = (begin <= tcp + 12) & (end > tcp + 12)
    depends: Mask = (begin < length + 2) & (end > length) | data_offset | (end > tcp + 20)
    return depends


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


class Reader:
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
    _LD: Machine.load,
    _LDX: Machine.load_index,
    _ST: Machine.store,
    _STX: Machine.store,
    _ALU: Machine.compute,
    _JMP: Machine.jump,
    _RET: Machine.end,
    _MISC: Machine.move,
}
