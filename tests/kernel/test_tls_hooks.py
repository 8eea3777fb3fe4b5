"""Plaintext of TLS with the uprobes that this kernel has: perf or uprobe_multi.

A few ways to talk are enough here: the others are the same everywhere, and each takes seconds.
"""

import base64
import shutil
from collections import defaultdict
from itertools import chain
from pathlib import Path

import pytest

from tests.support.capture import capturing
from tests.support.forked import look_for_tls_in_processes_alone
from tests.support.netns import Netns
from tests.support.nginx import nginx
from tests.support.tls import certificate, records_on_the_wire
from tests.support.tls_seen import Seen, check_records, payloads, plaintext, talk
from tests.support.tracer import Event, tracing

WAYS = ("forked", "in_memory")
ADDRESS = "https://127.0.0.1:8080/hello"


def test_what_programs_wrote_and_read(netns: Netns, tmp_path: Path) -> None:
    """Of Python with and without asyncio, of curl and nginx; we have their library, too."""
    assert "/libssl.so" in Path("/proc/self/maps").read_text()
    if not shutil.which("curl"):
        pytest.skip("needs curl")
    files = certificate(tmp_path)
    chosen = ("--tls", "--netns", netns.path, "--payload", "16384")
    with nginx(netns, tmp_path, tls=files) as log:
        with (
            capturing(netns, "lo", tmp_path / "pcap", "127.0.0.1"),
            tracing(tmp_path / "out", *chosen, before=look_for_tls_in_processes_alone) as tracer,
        ):
            told = {way: talk(netns, way, files) for way in WAYS}
            output = tmp_path / "answer"
            options = ("-s", "-i", "--http1.1", "--cacert", files[0], "-o", str(output))
            netns.run("curl", *options, ADDRESS)
        assert len(log.read_text().splitlines()) == 1
    seen: dict[tuple[int, int], list[Event]] = defaultdict(list)
    for event in plaintext(tracer.events):
        seen[event["local_port"], event["remote_port"]].append(event)
    wire = records_on_the_wire(tmp_path / "pcap")
    for said in told.values():
        events = [e for ports in dict.fromkeys(key[:2] for key in said) for e in seen.pop(ports)]
        assert payloads(events) == said
        check_records(Seen(said, wire, events))
    moved: dict[tuple[str, str], bytes] = defaultdict(bytes)
    for event in chain.from_iterable(seen.values()):
        moved[event["comm"], event["kind"]] += base64.b64decode(event["payload"])
    request = moved["curl", "tls_send"]
    assert request.startswith(b"GET /hello HTTP/1.1\r\n")
    assert moved == {
        ("curl", "tls_send"): request,
        ("nginx", "tls_recv"): request,
        ("nginx", "tls_send"): output.read_bytes(),
        ("curl", "tls_recv"): output.read_bytes(),
    }
