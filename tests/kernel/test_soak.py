"""`tcprism serve` under load for half a minute; benchmarks/soak.py has it for half an hour."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from tests.support.netns import namespace
from tests.support.nginx import nginx
from tests.support.serving import Server, serving
from tests.support.soak import REQUESTS, RETRANSMITS, Soaked, soak, unbalanced

pytestmark = pytest.mark.native

SECONDS = 30


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Soaked, Server]]:
    if not shutil.which("ab"):
        pytest.skip("needs the package apache2-utils")
    options = ("--requests",)
    with (
        namespace() as netns,
        nginx(netns, tmp_path_factory.mktemp("soak")),
        serving(*options, "--netns", netns.path) as server,
    ):
        yield soak(netns, server, SECONDS), server


@pytest.mark.parametrize("name", ["memory", "descriptors", "series"])
def test_what_it_takes_does_not_grow(run: tuple[Soaked, Server], name: str) -> None:
    found, _ = run
    assert found.growth(name) < 1.05, [getattr(sample, name) for sample in found.samples]


def test_its_sums_and_its_ledger_are_exact(run: tuple[Soaked, Server]) -> None:
    found, server = run
    assert found.told == {REQUESTS: found.requests, RETRANSMITS: found.retransmitted}
    assert found.requests > 0
    assert found.retransmitted > 0
    # On a busy machine a hook may interrupt itself: that is counted, as `missed`.
    assert server.sum("tcprism_events_lost_total") < found.requests / 10_000
    assert server.stop() == 0
    assert unbalanced(server) == []
