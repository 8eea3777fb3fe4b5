"""`--config FILE`: options from a TOML file, and classes of addresses."""

from __future__ import annotations

import ipaddress
import tomllib
from pathlib import Path
from typing import Any

import click

from tcprism.errors import UsageError

_LONGEST = 1 << 20  # bytes
_PEERS = "peers"


def read_config(context: click.Context, _: click.Parameter, path: str | None) -> dict[str, Any]:
    """Have a file's values where the command line has none; return its classes of addresses.

    Raises UsageError.
    """
    if path is None:
        return {}
    found = _read(path)
    peers = _peers(found.pop(_PEERS, {}))
    options = [p for p in context.command.params if isinstance(p, click.Option) and p.name]
    known = {name.lstrip("-").replace("-", "_"): p for p in options for name in (p.name, *p.opts)}
    values: dict[str, Any] = {}
    for key, value in found.items():
        option = known.get(key.replace("-", "_"))
        if option is None or option.name == "config":
            raise UsageError(
                f"--config: {path} has {key!r}, which is not an option of this command"
            )
        values[str(option.name)] = _value(path, key, option, value)
    context.default_map = values
    return peers


config_option = click.option(
    "--config",
    metavar="FILE",
    is_eager=True,
    callback=read_config,
    help="Options from a TOML file, such as requests = true; the command line goes before it.",
)


def _read(path: str) -> dict[str, Any]:
    try:
        with Path(path).open("rb") as file:
            data = file.read(_LONGEST + 1)
        if len(data) > _LONGEST:
            raise UsageError(f"--config: {path} is too long to be a configuration")
        return tomllib.loads(data.decode())
    except OSError as error:
        raise UsageError(f"--config: cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--config: {path} is not TOML: {error}") from error


def _value(path: str, key: str, option: click.Option, value: Any) -> Any:
    if isinstance(value, bool):
        return _switched(path, key, option, value)
    given = value if isinstance(value, list) else [value]
    if any(isinstance(each, bool) or not isinstance(each, str | int | float) for each in given):
        raise UsageError(f"--config: {key} in {path} is not a text, a number or a list of them")
    if option.multiple:
        return list(map(str, given))
    if isinstance(value, list):
        return ",".join(map(str, value))
    if option.is_flag:
        raise UsageError(f"--config: {key} in {path} must be true or false")
    return str(value)


def _switched(path: str, key: str, option: click.Option, value: bool) -> Any:
    if option.is_flag:
        return value
    if option.count:
        return int(value)
    if isinstance(option.flag_value, str):  # its value may be left out
        return option.flag_value if value else None
    raise UsageError(
        f"--config: {key} in {path} takes what it takes on the command line, not true or false"
    )


def _peers(found: Any) -> dict[str, list[str]]:
    if not isinstance(found, dict):
        raise UsageError("--config: [peers] has names of networks, each with a list of addresses")
    peers = {}
    for name, networks in found.items():
        if not name:
            raise UsageError("--config: [peers] has a network without a name: give it one")
        listed = [networks] if isinstance(networks, str) else networks
        if not isinstance(listed, list):
            raise UsageError(f'--config: [peers] {name} is a list, as {name} = ["10.1.0.0/16"]')
        try:
            peers[name] = [str(ipaddress.ip_network(each, strict=False)) for each in listed]
        except (ValueError, TypeError) as error:
            raise UsageError(
                f'--config: [peers] {name}: {error}; write for example {name} = ["10.1.0.0/16"]'
            ) from error
    return peers
