"""Where ClickHouse is, and who asks: a URL without secrets, and these from a file or variables."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tcprism.errors import UsageError

DATABASE = "tcprism"

# ClickHouse's own client reads these.
_USER, _PASSWORD = "CLICKHOUSE_USER", "CLICKHOUSE_PASSWORD"
_PORTS = {"http": 8123, "https": 8443}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_LONGEST = 1 << 16  # bytes of a file
_FILES = ("ca_certificate", "client_certificate", "client_key")


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who asks, and files in PEM: who the server may be, and who we are."""

    user: str = "default"
    password: str = ""
    ca_certificate: str = ""
    client_certificate: str = ""
    client_key: str = ""

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that are read when a connection is made."""
        return tuple(Path(name) for each in _FILES if (name := getattr(self, each)))


class Address:
    """A URL such as https://clickhouse.example:8443/tcprism, parsed. Raises UsageError."""

    def __init__(self, text: str) -> None:
        try:
            parts = urlsplit(text)
            self.port = parts.port or _PORTS[parts.scheme]
        except (ValueError, KeyError):
            parts = urlsplit("")
            self.port = 0
        if parts.password is not None:
            raise UsageError(
                "--clickhouse: others see what a command line has: put the password into the"
                f" variable {_PASSWORD} or into the file of --credentials"
            )
        self.host = parts.hostname or ""
        self.secure = parts.scheme == "https"
        self.user = unquote(parts.username or "")
        self.database = parts.path.strip("/") or DATABASE
        if not self.host or parts.query or parts.fragment or not _NAME.fullmatch(self.database):
            raise UsageError(
                f"--clickhouse: {text!r} is not an address; write for example --clickhouse"
                " http://127.0.0.1:8123, or https://clickhouse.example:8443/tcprism"
            )

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        scheme = "https" if self.secure else "http"
        return f"{scheme}://{host}:{self.port}/{self.database}"


def credentials(
    address: Address, path: str | None, environment: Mapping[str, str] = os.environ
) -> Credentials:
    """Return who asks: what a TOML file says; else the variables of ClickHouse's own client.

    The URL's user goes before both. Raises UsageError.
    """
    if path is None:
        told = {"user": environment.get(_USER, ""), "password": environment.get(_PASSWORD, "")}
    else:
        told = _read(path)
    if address.user:
        told["user"] = address.user
    return Credentials(**{name: text for name, text in told.items() if text})


def _read(path: str) -> dict[str, str]:
    try:
        with Path(path).open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(_LONGEST + 1)
        if len(data) > _LONGEST:
            raise UsageError(f"--credentials: {path} is too long to be a file of credentials")
        found = tomllib.loads(data.decode())
    except OSError as error:
        raise UsageError(f"--credentials: cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--credentials: {path} is not TOML: {error}") from error
    known = [field.name for field in fields(Credentials)]
    for name, value in found.items():
        if name not in known or not isinstance(value, str):
            raise UsageError(
                f"--credentials: {path} has {name!r}: what it may have is {', '.join(known)},"
                " each a text"
            )
    if "password" in found and mode & 0o077:
        raise UsageError(f"--credentials: others may read {path}: run `chmod 600 {path}`")
    return found
