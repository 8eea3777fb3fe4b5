"""The list of protocols, its page, and a protocol that another package adds."""

import sys
from importlib import import_module
from pathlib import Path

import pytest

from tcprism.errors import UsageError
from tcprism.protocols import known

from .talk import CLIENT, SERVER, exchanges

ROOT = Path(__file__).resolve().parents[3]


def test_each_protocol_is_on_the_page() -> None:
    page = (ROOT / "docs/requests.md").read_text()
    assert [one.name for one in known.PROTOCOLS if f"| `{one.name}`" not in page] == []


def test_names_are_chosen_in_the_order_in_which_they_are_tried() -> None:
    chosen = known.protocols(["redis", "http"])
    assert [one.name for one in chosen] == ["http", "redis"]
    assert known.protocols() == known.PROTOCOLS
    with pytest.raises(UsageError, match="'gopher' is not a protocol; choose from http"):
        known.protocols(["gopher"])


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("postgres", "postgresql"), ("memcache", "memcached"), ("h2", "http2"), ("HTTP", "http"),
     ("mariadb", "mysql"), ("websockets", "websocket")],
)  # fmt: skip
def test_a_name_that_is_nearly_one_is_suggested(typed: str, meant: str) -> None:
    with pytest.raises(UsageError, match=f"did you mean {meant}\\?"):
        known.protocols([typed])


def test_a_protocol_of_another_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT / "examples/plugin"), *sys.path])
    echo = import_module("tcprism_echo").ECHO
    monkeypatch.setattr(known, "plugins", lambda _group: ["echo"])
    monkeypatch.setattr(known, "plugin", lambda _group, _name: echo)
    said = [(CLIENT, b"ECHO a\r\nECHO b\r\n"), (SERVER, b"SAID a\r\nERROR no\r\n")]
    for piece in (1, 5, 100):
        found = exchanges(said, known.protocols(["echo"]), piece=piece)
        assert [(one.resource, one.status, one.failed) for one in found] == [
            ("?", "SAID", False),
            ("?", "ERROR", True),
        ]
