"""Fixtures of the tests that need a kernel."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import netns as namespaces

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("kernel")


@pytest.fixture(scope="session", autouse=True)
def root() -> None:
    """All of these tests make namespaces and load programs."""
    if os.geteuid() != 0:
        pytest.skip("needs root")


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
