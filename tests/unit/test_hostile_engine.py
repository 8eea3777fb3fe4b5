"""What a container engine answers is somebody else's: it may be anything."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tcprism.names import container_engine
from tests.support.engine import HEAD, Engine, body

OF_PODS = [f"io.kubernetes.pod.{each}" for each in ("name", "namespace", "uid")]
LABELS = ["pod-template-hash", "batch.kubernetes.io/job-name"]
KEYS = st.sampled_from(["Id", "Names", "Labels", *OF_PODS, *LABELS])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.just("\x1b[2J\r\n\ud800"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=6),
    max_leaves=12,
)
NAMED = st.fixed_dictionaries(
    {"Id": st.text(), "Names": st.lists(st.text(), min_size=1, max_size=2)},
    optional={"Labels": st.dictionaries(KEYS, st.text(), max_size=6)},
)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    made = Engine(tmp_path_factory.mktemp("engine") / "socket")
    yield made
    made.close()


def _shown(engine: Engine) -> list[str]:
    """Return all text that would be shown."""
    told = container_engine.ask(engine.path).values()
    return [part for each in told for part in each if part is not None]


bounded = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@bounded
@given(st.lists(NAMED | VALUES, max_size=4) | VALUES)
@example([{"Id": "a", "Names": ["/\x1b[2J\n"]}])
def test_any_json_is_names_that_can_be_shown(engine: Engine, found: Any) -> None:
    engine.answer = body(found)
    assert all(text.isprintable() for text in _shown(engine))


@bounded
@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda sent: HEAD % len(sent) + sent))
@example(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n[")
@example(HEAD % 10**18 + b"[]")
@example(HEAD % 200_000 + b"[" * 200_000)
def test_any_bytes_are_no_error(engine: Engine, answer: bytes) -> None:
    engine.answer = answer
    assert _shown(engine) == []


def test_a_true_answer_is_told(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tried above reaches the names."""
    monkeypatch.setattr(container_engine, "_PATIENCE", 300.0)  # the machine may be busy
    labels = {"io.kubernetes.pod.uid": "u", "io.kubernetes.pod.namespace": "shop"}
    engine.answer = body([{"Id": "a", "Names": ["/cart"], "Labels": labels}])
    assert _shown(engine) == ["cart", "shop"]
