"""Threads that preempt each other inside programs at uprobes: each has its own plaintext."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path

from tests.support.netns import Netns
from tests.support.tls import certificate
from tests.support.tls_seen import plaintext
from tests.support.tracer import tracing

WRITES = 2000

# Two processes write on one CPU, of which one has the other's place whenever it wakes up.
WRITE = """
import json, os, socket, ssl, sys, threading, time
certificate, key, writes = sys.argv[1], sys.argv[2], int(sys.argv[3])

def drain(raw):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with context.wrap_socket(raw, server_side=True) as end:
        while end.recv(65536):
            pass

def write(address, urgent):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with context.wrap_socket(socket.create_connection(address)) as end:
        with open("/proc/self/comm", "w") as file:
            file.write("writer")
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        if urgent:
            try:
                os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
            except PermissionError:  # its control group has no share of real-time
                os.setpriority(os.PRIO_PROCESS, 0, -20)
        for number in range(writes):
            end.sendall((f"{os.getpid()} {number} ".encode() * 9)[:20 + number % 80])
            if urgent:
                time.sleep(0.0001)

with socket.create_server(("127.0.0.1", 0)) as listener:
    writers = []
    for urgent in (True, False):
        child = os.fork()
        if not child:
            write(listener.getsockname(), urgent)
            os._exit(0)
        writers.append(child)
    threads = [threading.Thread(target=drain, args=(listener.accept()[0],)) for _ in writers]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    for child in writers:
        assert os.waitpid(child, 0)[1] == 0
print(json.dumps(writers))
"""


def test_what_preempted_threads_wrote(netns: Netns, tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITE, *certificate(tmp_path), str(WRITES)]
    chosen = ("--tls", "--kinds", "tls_send", "--comm", "writer", "--payload", "128")
    with tracing(tmp_path / "out", *chosen) as tracer:
        told = subprocess.run(netns.command(*command), check=True, stdout=subprocess.PIPE)
    writers = json.loads(told.stdout)
    seen: dict[int, list[bytes]] = {writer: [] for writer in writers}
    for event in plaintext(tracer.events):
        seen[event["pid"]].append(base64.b64decode(event["payload"]))
    assert seen == {
        writer: [
            (f"{writer} {number} ".encode() * 9)[: 20 + number % 80] for number in range(WRITES)
        ]
        for writer in writers
    }
    counts = tracer.ledger["tls_send"]
    assert (counts["seen"], counts["received"]) == (2 * WRITES, 2 * WRITES)
