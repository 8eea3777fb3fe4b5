"""Giving up privileges: capabilities, Landlock and seccomp, by system calls.

Each of these holds for the calling thread and those that it starts, so they are called while there
is no other thread. All functions raise OSError.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

_library = ctypes.CDLL(None, use_errno=True)

CAP_DAC_READ_SEARCH, CAP_SYS_ADMIN, CAP_BPF = 2, 21, 39  # include/uapi/linux/capability.h

_PR_SET_KEEPCAPS, _PR_CAPBSET_DROP = 8, 24  # include/uapi/linux/prctl.h
_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 22, 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_SECCOMP_MODE_FILTER = 2
_CAPABILITY_VERSION_3 = 0x20080522

# The same on every architecture: include/uapi/asm-generic/unistd.h.
_LANDLOCK_CREATE_RULESET, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT_SELF = 444, 445, 446

# include/uapi/linux/landlock.h: rights over files, as many as each version of the ABI knows.
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REMOVE_DIR, _REMOVE_FILE, _MAKE_DIR, _MAKE_REG = 1 << 4, 1 << 5, 1 << 7, 1 << 8
_TRUNCATE = 1 << 14
_BIND_TCP, _CONNECT_TCP = 1 << 0, 1 << 1  # ABI 4
_SCOPES = 0b11  # abstract Unix sockets, signals; ABI 6
_PATH_BENEATH, _NET_PORT = 1, 2

# Refused by number, arch/x86/entry/syscalls/syscall_64.tbl: who makes no such call at all.
_REFUSED = {
    "execve": 59,
    "execveat": 322,
    "ptrace": 101,
    "process_vm_readv": 310,
    "process_vm_writev": 311,
    "mount": 165,
    "umount2": 166,
    "pivot_root": 155,
    "chroot": 161,
    "setns": 308,
    "unshare": 272,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "init_module": 175,
    "finit_module": 313,
    "delete_module": 176,
    "kexec_load": 246,
    "kexec_file_load": 320,
    "add_key": 248,
    "request_key": 249,
    "keyctl": 250,
    "perf_event_open": 298,
    "userfaultfd": 323,
    "io_uring_setup": 425,
    "pidfd_getfd": 438,
    "socketpair": 53,
}
_SOCKET, _BPF = 41, 321

# enum bpf_cmd, include/uapi/linux/bpf.h: what works on programs and maps that are there.
_BPF_ALLOWED = {
    "MAP_LOOKUP_ELEM": 1,
    "MAP_UPDATE_ELEM": 2,
    "OBJ_GET_INFO_BY_FD": 15,
    "RAW_TRACEPOINT_OPEN": 17,
    "LINK_CREATE": 28,
    "ITER_CREATE": 33,
}

# include/uapi/linux/filter.h, seccomp.h, audit.h
_LOAD, _JUMP_EQUAL, _JUMP_GREATER_EQUAL, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050001  # SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO with EPERM
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENT_AT, _THIRD_ARGUMENT_AT = 0, 4, 16, 32
_AUDIT_ARCH_X86_64 = 0xC000003E
_X32 = 0x40000000
_IPPROTO_MPTCP = 262  # include/uapi/linux/in.h

# An instruction, its value, and where it goes on if it holds and if not: "" next, a verdict, or
# over so many.
_Test = tuple[int, int, str, str | int]


def _checked(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), what)
    return result


def _prctl(option: int, *arguments: int, what: str) -> None:
    values = [ctypes.c_ulong(value) for value in (*arguments, 0, 0, 0, 0)[:4]]
    _checked(_library.prctl(option, *values), what)


def has(capability: int) -> bool:
    """Tell whether this process may use a capability."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        held = next((line for line in status if line.startswith("CapPrm:")), "CapPrm: 0")
    return bool(int(held.split()[1], 16) >> capability & 1)


def drop_capabilities(user: tuple[int, int] | None, kept: Sequence[int] = ()) -> None:
    """Become a user (uid, gid), if one is given, and give up all capabilities but `kept`."""
    with suppress(OSError):  # without CAP_SETPCAP: there is nothing to gain by exec then, either
        for number in range(64):
            _prctl(_PR_CAPBSET_DROP, number, what="PR_CAPBSET_DROP")
    if user:
        _prctl(_PR_SET_KEEPCAPS, 1, what="PR_SET_KEEPCAPS")
        os.setgroups([])
        os.setresgid(user[1], user[1], user[1])
        os.setresuid(user[0], user[0], user[0])
    bits = sum(1 << number for number in kept)
    header = struct.pack("II", _CAPABILITY_VERSION_3, 0)
    low, high = bits & 0xFFFFFFFF, bits >> 32
    data = struct.pack("6I", low, low, 0, high, high, 0)
    _checked(_library.capset(header, data), "capset")
    with suppress(OSError):  # before 4.3 there are none
        _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, what="PR_CAP_AMBIENT")
    _prctl(_PR_SET_NO_NEW_PRIVS, 1, what="PR_SET_NO_NEW_PRIVS")


def own_places() -> Iterator[str]:
    """Yield where modules are imported from."""
    yield from (path for path in sys.path if path)
    yield sys.prefix
    yield sys.base_prefix


def landlock_version() -> int:
    """Return the version of Landlock's ABI here; 0 where the kernel has none."""
    return max(0, int(_library.syscall(_LANDLOCK_CREATE_RULESET, None, 0, 1)))


def restrict_files(
    readable: Iterable[str], writable: Iterable[str], connects: Sequence[int] | None
) -> bool:
    """Have only some files and folders readable, and files made and removed in others.

    `connects` are TCP ports that may be connected to, None: any. Returns False where the kernel has
    no Landlock. Needs no_new_privs.
    """
    version = landlock_version()
    if not version:
        return False
    handled = (1 << _FILE_RIGHTS.get(version, max(_FILE_RIGHTS.values()))) - 1
    network = (_BIND_TCP | _CONNECT_TCP) if version >= 4 and connects is not None else 0
    scopes = _SCOPES if version >= 6 else 0
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    attributes = struct.pack("QQQ", handled, network, scopes)[:size]
    made = _library.syscall(_LANDLOCK_CREATE_RULESET, attributes, size, 0)
    ruleset = _checked(made, "landlock_create_ruleset")
    try:
        read = _READ_FILE | _READ_DIR
        write = read | _WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _TRUNCATE
        for path in readable:
            _allow(ruleset, path, read & handled)
        for path in writable:
            _allow(ruleset, path, write & handled)
        for port in (connects or ()) if network else ():
            rule = struct.pack("QQ", _CONNECT_TCP, port)
            added = _library.syscall(_LANDLOCK_ADD_RULE, ruleset, _NET_PORT, rule, 0)
            _checked(added, "landlock_add_rule")
        _checked(_library.syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0), "landlock_restrict_self")
    finally:
        os.close(ruleset)
    return True


def _allow(ruleset: int, path: str, rights: int) -> None:
    """Allow some rights over a file, or all in a folder, if it is there."""
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not os.path.isdir(path):
            rights &= _READ_FILE | _WRITE_FILE | _TRUNCATE | _EXECUTE
        rule = struct.pack("=Qi", rights, descriptor)
        added = _library.syscall(_LANDLOCK_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0)
        _checked(added, "landlock_add_rule")
    finally:
        os.close(descriptor)


def refuse_system_calls(families: Sequence[int] = ()) -> bool:
    """Refuse system calls that nobody here makes: new programs, traces, mounts, BPF loads.

    What bpf(2) does with programs that are loaded goes on. New sockets are of some `families` only
    (socket.AF_INET), and none of MPTCP, whose ports Landlock does not look at. Returns False on an
    architecture whose numbers are not known here. Needs no_new_privs.
    """
    if platform.machine() != "x86_64":
        return False
    refused, commands = tuple(_REFUSED.values()), list(_BPF_ALLOWED.values())
    _install(_filter(refused, "refuse", commands, "allow", families))
    return True


def allow_system_calls(allowed: Iterable[int], commands: Sequence[int]) -> bool:
    """Allow some system calls by number, and of bpf(2) some commands: refuse all others.

    Returns False on an architecture whose numbers are not known here. Needs no_new_privs.
    """
    if platform.machine() != "x86_64":
        return False
    _install(_filter(tuple(allowed), "allow", commands, "refuse"))
    return True


def _install(program: Sequence[bytes]) -> None:
    code = ctypes.create_string_buffer(b"".join(program))
    described = struct.pack("HxxxxxxQ", len(program), ctypes.addressof(code))
    mode = _library.prctl(
        _PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), ctypes.c_char_p(described)
    )
    _checked(mode, "PR_SET_SECCOMP")


def _filter(
    numbers: Sequence[int],
    verdict: str,
    commands: Sequence[int],
    others: str,
    families: Sequence[int] = (),
) -> list[bytes]:
    """Return the instructions (struct sock_filter) that decide on a system call.

    There is one verdict on some numbers and one on all `others`; of bpf(2) some commands are
    allowed, of socket(2) some families. Each test goes to the next one, to one of the two verdicts
    at the end, or over some tests.
    """
    sockets: list[_Test] = []
    if families:
        sockets = [
            (_LOAD, _THIRD_ARGUMENT_AT, "", ""),
            (_JUMP_EQUAL, _IPPROTO_MPTCP, "refuse", ""),
            (_LOAD, _ARGUMENT_AT, "", ""),
            *((_JUMP_EQUAL, family, "allow", "") for family in families[:-1]),
            (_JUMP_EQUAL, families[-1], "allow", "refuse"),
        ]
    tests: list[_Test] = [
        (_LOAD, _ARCHITECTURE_AT, "", ""),
        (_JUMP_EQUAL, _AUDIT_ARCH_X86_64, "", "refuse"),
        (_LOAD, _NUMBER_AT, "", ""),
        (_JUMP_GREATER_EQUAL, _X32, "refuse", ""),
        *((_JUMP_EQUAL, number, verdict, "") for number in numbers),
        (_JUMP_EQUAL, _SOCKET, "" if sockets else "refuse", len(sockets)),
        *sockets,
        (_JUMP_EQUAL, _BPF, "", others),
        (_LOAD, _ARGUMENT_AT, "", ""),
        *((_JUMP_EQUAL, command, "allow", "") for command in commands[:-1]),
        (_JUMP_EQUAL, commands[-1], "allow", "refuse"),
    ]
    verdicts = {"allow": len(tests), "refuse": len(tests) + 1}

    def distance(place: int, to: str | int) -> int:
        if isinstance(to, int):
            return to
        return verdicts[to] - place - 1 if to else 0

    made = [
        struct.pack("HBBI", code, distance(place, yes), distance(place, no), value)
        for place, (code, value, yes, no) in enumerate(tests)
    ]
    return [*made, *(struct.pack("HBBI", _RETURN, 0, 0, v) for v in (_ALLOW, _REFUSE))]
