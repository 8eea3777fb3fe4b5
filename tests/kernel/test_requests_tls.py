"""Handshakes of TLS: what openssl's client says of each."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.netns import Netns
from tests.support.tracer import tracing

pytestmark = pytest.mark.native  # the stage is the same everywhere, and so are the events' tests

NAME = "shop.example"
ECDSA = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"  # ECDHE-ECDSA-AES256-GCM-SHA384 to openssl


@contextmanager
def server(netns: Netns, folder: Path) -> Iterator[None]:
    if not shutil.which("openssl"):
        pytest.skip("needs the package openssl")
    key, certificate = str(folder / "key"), str(folder / "certificate")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-keyout", key, "-out", certificate, "-days", "2", "-subj", f"/CN={NAME}"],
        check=True, capture_output=True,
    )  # fmt: skip
    options = ("-accept", "127.0.0.1:4433", "-cert", certificate, "-key", key, "-alpn", "h2")
    process = subprocess.Popen(
        netns.command("openssl", "s_server", "-www", *options),
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        netns.await_state("0A")
        yield
    finally:
        process.terminate()
        process.wait()


def client(netns: Netns, *options: str) -> str:
    """Shake hands, say no more; return what the client says of it."""
    command = netns.command("openssl", "s_client", "-connect", "127.0.0.1:4433", *options)
    return subprocess.run(command, input="Q\n", capture_output=True, text=True).stdout


def test_what_openssl_says_of_its_handshakes(netns: Netns, tmp_path: Path) -> None:
    named = ("-servername", NAME)
    session = str(tmp_path / "session")
    with server(netns, tmp_path):
        chosen = ("--netns", netns.path, "--protocol", "tls")
        with tracing(tmp_path / "out", *chosen, view="requests") as tracer:
            said = [
                client(netns, *named, "-tls1_2", "-sess_out", session),
                client(netns, *named, "-tls1_2", "-sess_in", session),
                client(netns, *named, "-tls1_3", "-alpn", "h2"),
                client(netns, *named, "-tls1_2", "-cipher", "AES128-SHA"),
            ]
    assert [bool(re.search("^Reused", text, re.MULTILINE)) for text in said] == [0, 1, 0, 0]
    assert "Cipher is ECDHE-ECDSA-AES256-GCM-SHA384" in said[0]
    assert "Cipher is TLS_AES_256_GCM_SHA384" in said[2]
    assert "Cipher is (NONE)" in said[3]
    found = sorted(tracer.events, key=lambda event: int(event["start_ts_ns"]))
    assert [(event["resource"], event["status"], event["failed"]) for event in found] == [
        (NAME, f"TLSv1.2 {ECDSA}", False),
        (NAME, f"TLSv1.2 {ECDSA}, resumed", False),
        (NAME, "TLSv1.3 TLS_AES_256_GCM_SHA384, offered h2", False),
        (NAME, "alert handshake_failure", True),
    ]
    assert {(event["request_state"], event["view"]) for event in found} == {("complete", "both")}
    assert {(event["protocol"], event["method"]) for event in found} == {("tls", "handshake")}
