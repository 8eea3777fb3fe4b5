"""Fixtures of the tests that need a kernel."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import forked
from tests.support import netns as namespaces

ALL_NATIVE = "\npytestmark = pytest.mark.native"


def pytest_sessionstart() -> None:
    forked.prepare()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out modules that are all native where such tests are not wanted.

    To read a module takes seconds in a virtual machine.
    """
    if config.option.markexpr != "not native" or collection_path.suffix != ".py":
        return None
    return ALL_NATIVE in collection_path.read_text() or None


@pytest.fixture
def netns() -> Iterator[namespaces.Netns]:
    """A network namespace with lo up."""
    with namespaces.namespace() as made:
        yield made


@pytest.fixture
def pair() -> Iterator[namespaces.Pair]:
    """Two network namespaces joined by a veth pair."""
    with namespaces.joined() as made:
        yield made
