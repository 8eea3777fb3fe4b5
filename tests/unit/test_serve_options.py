"""The options of `tcprism serve` and its configuration; no kernel is asked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from tcprism.cli.serve import command
from tcprism.cli.serving import WEB, parse_keep, parse_prometheus
from tcprism.errors import Error, UsageError
from tcprism.metrics.otlp import Url


def given(*arguments: str) -> dict[str, Any]:
    """Return what the options come to."""
    return command.make_context("serve", list(arguments)).params


def test_the_file_gives_what_the_command_line_does_not(tmp_path: Path) -> None:
    file = tmp_path / "serve.toml"
    file.write_text(
        'requests = true\nkeep = "3G"\npayload = 100\nport = [443, "8000-8999"]\n'
        'ring-size = "1M"\nverbose = true\nlocal_port = 80\npids = 1\n'
        'kinds = ["close", "reset"]\ncomm = "nginx"\n'
        '[peers]\noffice = ["192.0.2.0/24"]\nvpn = "2001:db8::/32"\n'
    )
    found = given("--config", str(file), "--keep", "5G")
    assert found["requests"] is True
    assert found["keep"] == "5G"
    assert found["payload"] == 100
    assert found["port"] == ("443", "8000-8999")
    assert found["ring_size"] == "1M"
    assert (found["verbose"], found["local_port"], found["pid"]) == (1, ("80",), ("1",))
    assert found["kinds"] == "close,reset"
    assert found["comm"] == ("nginx",)
    assert found["config"] == {"office": ["192.0.2.0/24"], "vpn": ["2001:db8::/32"]}


def test_any_standard_output_will_do_for_tls(tmp_path: Path) -> None:
    """Only the page's address is written there. It ends as nobody has this address to listen at."""
    log = tmp_path / "log"
    log.touch(0o644)
    with log.open("w") as output:
        done = subprocess.run(
            [sys.executable, "-m", "tcprism", "serve", "--tls", "--prometheus", "192.0.2.1:9"],
            stdout=output, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    assert "cannot listen at 192.0.2.1:9" in done.stderr


def test_where_the_page_is(tmp_path: Path) -> None:
    file = tmp_path / "serve.toml"
    for text, found in (("true", WEB), ("false", None), ('"[::1]:80"', "[::1]:80")):
        file.write_text(f"web = {text}\n")
        assert given("--config", str(file))["web"] == found
    assert given("--web", "--requests")["web"] == WEB
    assert given("--web", "10.0.0.5:80")["web"] == "10.0.0.5:80"
    assert given()["web"] is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("speed = 3", "'speed', which is not an option of this command"),
        ("config = 'x'", "'config', which is not an option of this command"),
        ("requests = 'yes'", "requests in .* must be true or false"),
        ("record = true", "record in .* takes what it takes .* not true or false"),
        ("prometheus = false", "prometheus in .* takes what it takes .* not true or false"),
        ("comm = true", "comm in .* takes what it takes .* not true or false"),
        ("comm = [true]", "comm in .* is not a text"),
        ("keep = {a = 1}", "keep in .* is not a text"),
        ("[peers]\nx = ['nowhere']", r"\[peers\] x: 'nowhere' does not appear to be"),
        ("[peers]\nx = 5", r"\[peers\] x is a list"),
        ('[peers]\n"" = ["10.0.0.0/8"]', r"\[peers\] has a network without a name"),
        ("peers = 5", r"\[peers\] has names of networks"),
        ("=", "is not TOML"),
        ("\xff", "is not TOML"),
    ],
)
def test_a_file_that_makes_no_sense_is_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "serve.toml"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match=said):
        given("--config", str(file))


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*: No such file or directory"):
        given("--config", str(tmp_path / "none"))
    (tmp_path / "long").write_bytes(b"#" * (1 << 20) + b"\n")
    with pytest.raises(UsageError, match="too long"):
        given("--config", str(tmp_path / "long"))


def test_addresses() -> None:
    assert parse_prometheus("127.0.0.1:9878") == ("127.0.0.1", 9878)
    assert parse_prometheus("[::1]:0") == ("::1", 0)
    assert parse_prometheus("off") is None
    for wrong in ("9878", ":9878", "host:", "host:70000", "host:x", ""):
        with pytest.raises(UsageError, match="is not an address and a port"):
            parse_prometheus(wrong)


def test_a_place_that_is_too_small_is_refused() -> None:
    assert parse_keep("64M") == 64 << 20
    for wrong in ("63M", "1K", "x"):
        with pytest.raises(UsageError, match="--keep"):
            parse_keep(wrong)


def test_urls_of_collectors() -> None:
    assert Url("http://127.0.0.1:4318").text == "http://127.0.0.1:4318/v1/metrics"
    assert Url("http://127.0.0.1:4318/").text == "http://127.0.0.1:4318/v1/metrics"
    assert Url("https://host/otlp").text == "https://host/otlp"
    assert Url("https://host").port == 443
    for wrong in ("host:4318", "ftp://host", "http://", "http://host:x", ""):
        with pytest.raises(UsageError, match="is not an address"):
            Url(wrong)
    for secret in ("https://user:secret@host", "https://token@host", "https://:secret@host"):
        with pytest.raises(UsageError, match="credentials into the environment"):
            Url(secret)
    assert Url("https://host/otlp?key=secret").text == "https://host/otlp?key=secret"
    assert Url("https://host/otlp?key=secret").shown == "https://host/otlp"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--prometheus", "off"), "nothing would come of it"),
        (("--web", "here"), "--web: 'here' is not an address and a port"),
        (("--web", "--web-memory", "1M"), "--web-memory: '1M' is too little"),
        (
            ("--web", "192.0.2.1:9", "--prometheus", "off"),
            r"^--web: cannot listen at 192.0.2.1:9 \(Cannot assign requested address\): choose",
        ),
        (
            ("--web", f"{'x' * 64}.invalid:9", "--prometheus", "off"),
            r"^--web: cannot listen at x+.invalid:9 \((?!Unknown|Success)[A-Z].*\): choose",
        ),
        (("--user", "nobody-at-all"), "--user: there is no user 'nobody-at-all'"),
        (("--record", "x", "--keep", "1M"), "--keep"),
        (("--keep", "1G"), "--keep does nothing without --record"),
        (("--web-memory", "1G"), "--web-memory does nothing without --web"),
        (("--spool-size", "1G"), "--spool-size does nothing without --clickhouse"),
    ],
)
def test_what_makes_no_sense_is_said_before_anything_starts(
    arguments: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tcprism.sources.least_privilege.os.geteuid", lambda: 0)
    with pytest.raises(Error, match=said):
        command.main(list(arguments), standalone_mode=False)
    assert isinstance(command, click.Command)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('keep = "1G"', "--keep does nothing without --record"),
        ('encrypt-to = "age1x"', "--encrypt-to does nothing without --record"),
        ('web_memory = "1G"\nweb = false', "--web-memory does nothing without --web"),
        ('spool-size = "1G"', "--spool-size does nothing without --clickhouse"),
    ],
)
def test_what_does_nothing_is_said_of_a_file_too(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "serve.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=said):
        command.main(["--config", str(file)], standalone_mode=False)
