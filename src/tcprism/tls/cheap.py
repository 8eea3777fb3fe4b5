"""Where uprobes cost little: the kernel emulates some instructions, others it has to single-step.

That takes 5 µs a hit instead of 1. The functions that programs call begin with `sub` in most builds
of OpenSSL. So probes go to the function behind them, which begins with `push`, or to a later
instruction; where the code does not prove that this is the same, they stay where they are. So it is
for functions that free a session, which begin with `test`. And those behind BIO_write() and
BIO_read() are hit by fewer calls.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from tcprism.tls.memory import memory_functions

_LONGEST = 96  # bytes of a function that are read
_ENTRIES = ("SSL_write", "SSL_read")
# They have no return probe, which has to be where a function begins.
_ENTERED_ONLY = {"BIO_write", "mem_write", "bio_write", "SSL_free", "gnutls_deinit"}

# sub $n,%rsp; call: the arguments are those of the function that is called.
_PASSES_ON = re.compile(rb"(?:\xf3\x0f\x1e\xfa)?\x48\x83\xec.\xe8(....)", re.DOTALL)
_PUSH = re.compile(rb"\x41?[\x50-\x57]")
# endbr64; sub $n,%rsp; the stack protector; xor %eax,%eax; test %edx,%edx; test %rdi,%rdi; then
# push or a branch.
_KEEPS_ARGUMENTS = re.compile(
    rb"(?:\xf3\x0f\x1e\xfa|\x48\x83\xec.|\x64\x48\x8b\x04\x25\x28\0\0\0|\x48\x89\x44\x24."
    rb"|\x31\xc0|\x85\xd2|\x48\x85\xff)*(?=\x41?[\x50-\x57]|[\x70-\x7f]|\x0f[\x80-\x8f])",
    re.DOTALL,
)


def cheap_functions(path: str, functions: Mapping[str, int]) -> dict[str, int]:
    """Return the offsets at which to probe a file's functions, from those where they begin.

    The public function is left out whose calls the one behind it sees as well. The functions for
    memory are added where BIO_write() serves other files, as in a shared libcrypto; a program with
    a BIO_write() of its own mostly has it for memory of its own. Raises OSError.
    """
    found = dict(functions)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        code = {name: os.pread(descriptor, _LONGEST, at) for name, at in functions.items()}
        for name in _ENTRIES:
            inner = _behind(name, functions, code)
            if inner is not None and _PUSH.match(os.pread(descriptor, 2, inner)):
                del found[name]
                found[f"{name}_ex"] = inner
        if "BIO_write" in functions and not functions.keys() & {*_ENTRIES}:
            found |= memory_functions(descriptor)
        for name in found.keys() & _ENTERED_ONLY:
            if passed := _KEEPS_ARGUMENTS.match(os.pread(descriptor, _LONGEST, found[name])):
                found[name] += passed.end()
    finally:
        os.close(descriptor)
    return found


def _behind(name: str, functions: Mapping[str, int], code: Mapping[str, bytes]) -> int | None:
    """Return the function that both SSL_write() and SSL_write_ex() call, if they do."""
    extended = f"{name}_ex"
    if name not in functions or extended not in functions:
        return None
    call = _PASSES_ON.match(code[extended])
    if call is None:
        return None
    inner = functions[extended] + call.end() + int.from_bytes(call[1], "little", signed=True)
    return inner if inner in _called(functions[name], code[name]) else None


def _called(begin: int, code: bytes) -> set[int]:
    """Return what call instructions may be for."""
    return {
        begin + at + 5 + int.from_bytes(code[at + 1 : at + 5], "little", signed=True)
        for at in range(len(code) - 4)
        if code[at] == 0xE8
    }
