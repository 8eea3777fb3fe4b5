"""--tls: which kinds it adds, and who could read what it writes."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from tcprism.cli.output import make_sink
from tcprism.cli.requests import command
from tcprism.cli.tls_options import with_tls, without_encrypted
from tcprism.errors import UsageError


def kinds(*chosen: str, tls: bool = True, **given: Any) -> tuple[str, ...]:
    return with_tls({"tls": tls, "output": "new", **given}, chosen)


def test_it_adds_plaintext_and_what_carries_it() -> None:
    assert kinds("close") == ("send", "recv", "close", "tls_send", "tls_recv")
    assert kinds("close", tls=False) == ("close",)


def test_encrypted_messages_are_left_out_unless_all_is_asked_for() -> None:
    chosen = kinds()
    assert len(without_encrypted({"layers": "plaintext"}, chosen)) == 1
    assert without_encrypted({"layers": "all"}, chosen) == ()
    assert without_encrypted({"layers": "plaintext"}, ("send", "recv")) == ()


def test_a_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("needs root, who may give a file away")
    foreign = tmp_path / "foreign"
    foreign.touch()
    os.chown(foreign, 65534, 65534)
    with pytest.raises(UsageError, match="belongs to user 65534"):
        kinds(output=str(foreign))
    assert kinds(output=str(tmp_path / "new"))


def test_a_standard_output_that_others_may_read_is_refused(tmp_path: Path) -> None:
    told = []
    for mode in (0o644, 0o600):
        path = tmp_path / f"{mode:o}"
        path.touch(mode)
        path.chmod(mode)
        code = (
            "from tcprism.cli.tls_options import with_tls;"
            "print(with_tls({'tls': True, 'output': None}, ()))"
        )
        with path.open("w") as output:
            done = subprocess.run(
                [sys.executable, "-c", code], stdout=output, stderr=subprocess.PIPE, text=True
            )
        told.append((done.returncode, "others may read" in done.stderr))
    assert told == [(1, True), (0, False)]


def test_top_refuses_such_an_output_too(tmp_path: Path) -> None:
    path = tmp_path / "output"
    path.touch(0o644)
    path.chmod(0o644)
    with path.open("w") as output:
        command = [sys.executable, "-m", "tcprism", "top", "--plain", "--tls"]
        done = subprocess.run(command, stdout=output, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert "others may read" in done.stderr


@pytest.mark.parametrize(
    ("form", "chosen", "said"),
    [
        ("text", ("send", "recv"), "it needs the format pcapng"),
        ("pcapng", ("send", "recv"), "needs trace or record with --tls"),
        ("pcapng", ("send", "recv", "tls_send", "tls_recv"), ""),
    ],
)
def test_packets_of_plaintext(form: str, chosen: tuple[str, ...], said: str) -> None:
    given = {"form": form, "packets": "plaintext", "count_only": False, "color": "never"}
    with pytest.raises(UsageError, match=said) if said else nullcontext():
        make_sink(given | {"payload_style": "text"}, chosen, io.BytesIO())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("trace", "--tls=handshakes"), "`tcprism requests --tls=handshakes` shows handshakes"),
        (("connections", "--tls"), "No such option '--tls'"),
        (("explain", "--tls", "{file}"), "`tcprism record --tls` made it"),
        (("top", "--plain", "--tls", "{file}"), "`tcprism record --tls` made it"),
    ],
)
def test_what_it_does_not_take(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    (tmp_path / "run.tcpr").touch()
    given = [word.format(file=tmp_path / "run.tcpr") for word in words]
    done = subprocess.run(
        [sys.executable, "-m", "tcprism", *given], stderr=subprocess.PIPE, text=True
    )
    assert done.returncode == 2
    assert said in done.stderr


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (["--tls=handshakes", "--port", "443"], ["--protocol", "tls", "--port", "443"]),
        (["--tls", "--", "x", "--tls=handshakes"], ["--tls", "--", "x", "--tls=handshakes"]),
    ],
)
def test_requests_shows_handshakes_alone(given: list[str], meant: list[str]) -> None:
    parsed = [command.make_context("requests", [*each]).params for each in (given, meant)]
    assert parsed[0] == parsed[1]
    assert parsed[0]["protocol"] == (None if "--" in given else "tls")
    assert parsed[0]["tls"] == ("--" in given)
