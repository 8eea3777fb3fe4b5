"""Where a fleet's ClickHouse is, and who asks it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tcprism.errors import UsageError
from tcprism.fleet.address import Address, Credentials, credentials


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://127.0.0.1", "http://127.0.0.1:8123/tcprism"),
        ("https://me@db.example/prod", "https://db.example:8443/prod"),
        ("http://[::1]:80/", "http://[::1]:80/tcprism"),
    ],
)
def test_addresses(text: str, shown: str) -> None:
    assert str(Address(text)) == shown


@pytest.mark.parametrize(
    "text",
    ["", "db", "ftp://db", "http://db:x", "http://db/a;b", "http://db/?password=x", "http://"],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UsageError, match="is not an address"):
        Address(text)


def test_a_password_is_not_taken_from_the_command_line() -> None:
    with pytest.raises(UsageError, match="CLICKHOUSE_PASSWORD") as raised:
        Address("http://me:secret@db")
    assert "secret" not in str(raised.value)


def test_credentials(tmp_path: Path) -> None:
    told = {"CLICKHOUSE_USER": "a", "CLICKHOUSE_PASSWORD": "b"}
    assert credentials(Address("http://db"), None, told) == Credentials("a", "b")
    assert credentials(Address("http://c@db"), None, told) == Credentials("c", "b")
    assert credentials(Address("http://db"), None, {}) == Credentials()
    path = tmp_path / "who.toml"
    path.write_text('user = "d"\npassword = "e"\nca_certificate = "/ca.pem"\n')
    path.chmod(0o600)
    found = credentials(Address("http://db"), str(path), told)
    assert found == Credentials("d", "e", "/ca.pem")
    assert found.files == (Path("/ca.pem"),)
    path.chmod(0o640)
    with pytest.raises(UsageError, match="chmod 600"):
        credentials(Address("http://db"), str(path), told)


@pytest.mark.parametrize("text", ["user = 1", 'word = "x"', "=", "\xff"])
def test_files_that_are_no_credentials(tmp_path: Path, text: str) -> None:
    path = tmp_path / "who.toml"
    path.write_text(text, "latin-1")
    with pytest.raises(UsageError, match="--credentials"):
        credentials(Address("http://db"), str(path), {})
