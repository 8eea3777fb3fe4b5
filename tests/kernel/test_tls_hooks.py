"""Plaintext of TLS with the uprobes that this kernel has: perf or uprobe_multi.

A pair of each library, and a few ways to talk, are enough here: the others are the same everywhere,
and each takes seconds.
"""

import base64
import ctypes
import os
import re
import shutil
from collections import defaultdict
from itertools import chain
from pathlib import Path

import pytest

from tests.kernel import test_tls_go
from tests.kernel.test_tls_go import nats
from tests.support.capture import capturing
from tests.support.forked import look_for_tls_in_processes_alone
from tests.support.netns import Netns
from tests.support.nginx import nginx
from tests.support.tls import certificate, records_on_the_wire
from tests.support.tls_seen import Seen, check_records, in_short, payloads, plaintext, talk
from tests.support.tracer import Event, tracing

WAYS = ("forked", "in_memory")
NATS = 4222
ADDRESS = "https://127.0.0.1:8080/hello"


def ask(netns: Netns, files: tuple[str, str], folder: Path) -> dict[str, bytes]:
    """Have curl (OpenSSL) and wget (GnuTLS) ask nginx once each; return what they received."""
    answers = {name: folder / f"{name}.answer" for name in ("curl", "wget")}
    curl = ("-s", "-i", "--http1.1", "--cacert", files[0], "-o", str(answers["curl"]))
    netns.run("curl", *curl, ADDRESS)
    wget = ("-q", "--save-headers", f"--ca-certificate={files[0]}", "-O", str(answers["wget"]))
    netns.run("wget", *wget, ADDRESS)
    return {name: answer.read_bytes() for name, answer in answers.items()}


def test_what_programs_wrote_and_read(netns: Netns, tmp_path: Path) -> None:
    """Of Python with and without asyncio, curl, wget, nginx, and a server in Go.

    We have the libraries, too, so that they are found before there is anything to miss.
    """
    for program in ("curl", "wget", "nats-server"):
        if not shutil.which(program):
            pytest.skip(f"needs {program}")
    ctypes.CDLL("libgnutls.so.30")
    assert "/libssl.so" in Path("/proc/self/maps").read_text()
    files = certificate(tmp_path)
    chosen = ("--tls", "--netns", netns.path, "--payload", "16384")
    with nginx(netns, tmp_path, tls=files) as log, nats(netns, tmp_path, files):
        with (
            capturing(netns, "lo", tmp_path / "pcap", "127.0.0.1"),
            tracing(tmp_path / "out", *chosen, before=look_for_tls_in_processes_alone) as tracer,
        ):
            told = {way: talk(netns, way, files) for way in WAYS}
            answers = ask(netns, files, tmp_path)
            told_by_nats = test_tls_go.talk(netns, messages=5, clients=2)
        assert len(log.read_text().splitlines()) == 2
    seen: dict[tuple[int, int], list[Event]] = defaultdict(list)
    for event in plaintext(tracer.events):
        seen[event["local_port"], event["remote_port"]].append(event)
    wire = records_on_the_wire(tmp_path / "pcap")
    for said in told.values():
        events = [e for ports in dict.fromkeys(key[:2] for key in said) for e in seen.pop(ports)]
        assert payloads(events) == said
        check_records(Seen(said, wire, events))
    rest = [event for event in chain.from_iterable(seen.values()) if NATS not in ports_of(event)]
    check_asked(rest, answers)
    of_nats = [event for event in plaintext(tracer.events) if event["local_port"] == NATS]
    if knows_goroutines():
        test_tls_go.check(of_nats, told_by_nats)
    else:  # of no connection, which passes no filter by one
        assert of_nats == []


def knows_goroutines() -> bool:
    """Tell whether programs may read the registers of a thread in a system call: since 5.15."""
    version = tuple(map(int, re.findall(r"[0-9]+", os.uname().release)[:2]))
    return version >= (5, 15)


def ports_of(event: Event) -> tuple[int, int]:
    return event["local_port"], event["remote_port"]


def check_asked(events: list[Event], answers: dict[str, bytes]) -> None:
    """Check that nginx read what each client wrote, and wrote what that has received."""
    moved: dict[tuple[str, str], bytes] = defaultdict(bytes)
    for event in events:
        moved[event["comm"], event["kind"]] += base64.b64decode(event["payload"])
    asked = [moved[name, "tls_send"] for name in answers]
    assert all(request.startswith(b"GET /hello HTTP/1.1\r\n") for request in asked)
    assert moved == {
        **{(name, "tls_send"): request for name, request in zip(answers, asked, strict=True)},
        **{(name, "tls_recv"): answer for name, answer in answers.items()},
        ("nginx", "tls_recv"): b"".join(asked),
        ("nginx", "tls_send"): b"".join(answers.values()),
    }, in_short(events)
