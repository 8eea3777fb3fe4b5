"""Whether return probes are safe for programs with seccomp filters."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tcprism.features.uretprobe import passes_filters, seccomp_sees_return_probes
from tcprism.tls.seccomp import with_seccomp

GETPPID = 110
FIRST, FIXED = (6, 11), (6, 14)  # later updates of what is between may be fixed as well

CONFINED = """
import ctypes, struct, sys, threading
code = struct.pack("<HBBI", 6, 0, 0, 0x7FFF0000)
class Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))
def confine():
    libc = ctypes.CDLL(None)
    assert not libc.prctl(38, *map(ctypes.c_ulong, (1, 0, 0, 0)))
    assert not libc.prctl(22, ctypes.c_ulong(2), ctypes.byref(Program(1, code)))
    print(flush=True)
    sys.stdin.read()
threading.Thread(target=confine).start()
"""


def test_a_call_that_is_filtered() -> None:
    assert not passes_filters(GETPPID)


def test_this_kernel() -> None:
    version = tuple(map(int, re.findall(r"[0-9]+", os.uname().release)[:2]))
    if version < FIRST or version >= FIXED:
        assert not seccomp_sees_return_probes()


def test_which_processes_filter() -> None:
    own = "Seccomp:\t0\n" not in Path("/proc/self/status").read_text()
    assert with_seccomp([os.getpid(), 4194305]) == ({os.getpid()} if own else set())
    with subprocess.Popen(
        [sys.executable, "-c", CONFINED], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"\n"
        assert process.pid in with_seccomp([process.pid, 4194305])
        assert process.stdin
        process.stdin.close()
