"""A process is killed inside a call into a TLS library; the kernel gives its pid to another."""

import base64
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.netns import Netns
from tests.support.tls import certificate
from tests.support.tls_seen import plaintext
from tests.support.tracer import PATIENCE, tracing

pytestmark = pytest.mark.native

# The client's end is the main thread's. It reads what never comes, or asks and gets an answer.
TALK = """
import socket, ssl, sys, threading
certificate, key, role, _ = sys.argv[1:]
server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl._create_unverified_context()
server.load_cert_chain(certificate, key)
def serve(raw):
    with server.wrap_socket(raw, server_side=True) as end:
        if end.recv(100):
            end.send(b"answered")
with socket.create_server(("127.0.0.1", 0)) as listener:
    raw = socket.create_connection(listener.getsockname())
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
with client.wrap_socket(raw) as end:
    if role == "reads":
        print(end.fileno(), flush=True)
    else:
        end.send(b"asked")
    end.recv(100)
"""

# clone3(2) can choose the pid: struct clone_args, linux/sched.h.
WITH_PID = """
import ctypes, os, signal, sys
pid = ctypes.c_int(int(sys.argv[1]))
arguments = (ctypes.c_uint64 * 11)()
arguments[4], arguments[8], arguments[9] = signal.SIGCHLD, ctypes.addressof(pid), 1
child = ctypes.CDLL(None, use_errno=True).syscall(435, arguments, ctypes.sizeof(arguments))
if child < 0:
    raise OSError(ctypes.get_errno(), "clone3")
if not child:
    os.execvp(sys.argv[2], sys.argv[2:])
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
READ = "0"  # the number of read(2), asm/unistd_64.h


def await_reading(pid: int, descriptor: int) -> None:
    """Wait until a thread waits for bytes from a descriptor: proc_pid_syscall(5)."""
    deadline = time.monotonic() + PATIENCE
    while Path(f"/proc/{pid}/syscall").read_text().split()[:2] != [READ, f"{descriptor:#x}"]:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_a_killed_thread_leaves_is_not_the_next_ones(netns: Netns, tmp_path: Path) -> None:
    files = certificate(tmp_path)

    def talk(role: str, room: int) -> list[str]:
        """Return a command; its stack begins so many bytes lower than it else would."""
        return ["setarch", "-R", sys.executable, "-c", TALK, *files, role, "x" * room]

    with tracing(tmp_path / "out", "--tls", "--netns", netns.path, "--payload", "100") as tracer:
        with subprocess.Popen(
            netns.command(*talk("reads", 0)), stdout=subprocess.PIPE, text=True
        ) as first:
            assert first.stdout
            await_reading(first.pid, int(first.stdout.readline()))
            first.kill()
        again = [sys.executable, "-c", WITH_PID, str(first.pid), *talk("asks", 100_000)]
        subprocess.run(netns.command(*again), check=True)
    said = {
        (event["kind"], event["tid"] == first.pid, base64.b64decode(event["payload"]))
        for event in plaintext(tracer.events)
    }
    assert said == {
        ("tls_send", True, b"asked"),
        ("tls_recv", False, b"asked"),
        ("tls_send", False, b"answered"),
        ("tls_recv", True, b"answered"),
    }
