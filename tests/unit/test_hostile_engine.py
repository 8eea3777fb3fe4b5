"""What a container engine answers is somebody else's: it may be anything."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tcprism.names import container_engine

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
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


class Engine:
    """An engine that answers what it is told to."""

    def __init__(self, path: Path) -> None:
        self.path, self.answer = path, b""
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                asker, _ = self._listener.accept()
                with asker, suppress(OSError):
                    asker.recv(1 << 16)
                    asker.sendall(self.answer)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    made = Engine(tmp_path_factory.mktemp("engine") / "socket")
    yield made
    made.close()


def _shown(engine: Engine) -> list[str]:
    """Return all text that would be shown."""
    names, pods = container_engine.ask(engine.path)
    parts = [part for pod in pods.values() for part in pod if part is not None]
    return [*names.values(), *parts]


def _body(found: Any) -> bytes:
    body = json.dumps(found).encode()
    return HEAD % len(body) + body


bounded = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@bounded
@given(st.lists(NAMED | VALUES, max_size=4) | VALUES)
@example([{"Id": "a", "Names": ["/\x1b[2J\n"]}])
def test_any_json_is_names_that_can_be_shown(engine: Engine, found: Any) -> None:
    engine.answer = _body(found)
    assert all(text.isprintable() for text in _shown(engine))


@bounded
@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda body: HEAD % len(body) + body))
@example(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n[")
@example(HEAD % 10**18 + b"[]")
@example(HEAD % 200_000 + b"[" * 200_000)
def test_any_bytes_are_no_error(engine: Engine, answer: bytes) -> None:
    engine.answer = answer
    assert _shown(engine) == []


def test_a_true_answer_is_told(engine: Engine) -> None:
    """What is tried above reaches the names."""
    labels = {"io.kubernetes.pod.uid": "u", "io.kubernetes.pod.namespace": "shop"}
    engine.answer = _body([{"Id": "a", "Names": ["/cart"], "Labels": labels}])
    assert _shown(engine) == ["cart", "shop"]
