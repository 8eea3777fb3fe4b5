"""The Python interface, as far as it needs no kernel."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any, Self

import pytest

import tcprism
from tcprism.errors import RecordingError, UsageError
from tcprism.events import Batch
from tcprism.sources import tracing
from tcprism.sources.tracing import Tracing

from .records import messages

SAMPLE = str(files("tcprism").joinpath("sample.tcpr"))


def test_the_names() -> None:
    for name in tcprism.__all__:
        assert getattr(tcprism, name).__doc__
    with pytest.raises(AttributeError, match="nothing"):
        tcprism.nothing  # noqa: B018


def test_importing_is_cheap() -> None:
    """Neither NumPy nor anything larger comes in before it is used."""
    script = "import sys, tcprism; print(sorted({'numpy', 'pyarrow', 'click'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "[]\n"


def test_events_are_values() -> None:
    first, *others = tcprism.open(SAMPLE)
    assert pickle.loads(pickle.dumps(first)) == first
    assert len({first, first, *others}) <= 1 + len(others)
    assert repr(first).startswith("Event(time=")
    assert str(first).startswith(first.time)
    with pytest.raises(AttributeError):
        first.pid = 1  # type: ignore[misc]


def test_kinds_and_filters() -> None:
    only = tcprism.Filter(port=8080, comm="demo-server")
    events = list(tcprism.open(SAMPLE, kinds={"send"}, filters=only))
    assert {(event.kind, event.comm) for event in events} == {("send", "demo-server")}
    assert events == [
        event for event in tcprism.open(SAMPLE) if event.kind == "send" and event in set(events)
    ]


def test_requests_of_a_recording() -> None:
    """As many of each as clients have sent."""
    payloads = [event.payload for event in tcprism.open(SAMPLE, kinds={"send"})]
    sent = [re.match(rb"(GET|POST) (\S+) HTTP/1", payload or b"") for payload in payloads]
    found = list(tcprism.requests(SAMPLE, protocols=["http"]))
    assert Counter((one["method"], one["resource"]) for one in found) == Counter(
        (one[1].decode(), one[2].decode()) for one in sent if one
    )
    assert {one.kind for one in found} == {"request"}
    assert not list(tcprism.requests(SAMPLE, protocols=["redis"]))
    with pytest.raises(UsageError, match="did you mean http"):
        tcprism.requests(SAMPLE, protocols=["htp"])


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
def test_texts_that_the_command_line_cannot_have(text: str) -> None:
    """What no path and no name can have would be an error of Python's own further in."""
    for use in (
        lambda: tcprism.Filter(netns=text).live(),
        lambda: tcprism.Filter(comm=text),
        lambda: tcprism.open(text),
        lambda: tcprism.explain(text),
    ):
        with pytest.raises(UsageError, match="has a character"):
            use()


def test_explaining_a_recording_that_is_cut_off(tmp_path: Path) -> None:
    whole = Path(SAMPLE).read_bytes()
    short = tmp_path / "short.tcpr"
    short.write_bytes(whole[: len(whole) * 3 // 4])
    assert tcprism.explain(SAMPLE).trouble == ()
    found = tcprism.explain(short)
    assert len(found)
    (sentence,) = found.trouble
    assert sentence.startswith(f"{short} ends without its last batch")
    assert not found.damaged
    short.write_bytes(whole[: len(whole) * 3 // 4] + b"nonsense" * 4096)
    assert tcprism.explain(short).damaged


@pytest.mark.parametrize("read", [tcprism.open, tcprism.explain])
def test_memory_is_bounded(read: Callable[..., Iterable[object]]) -> None:
    assert list(read(SAMPLE, max_memory=64 << 20)) == list(read(SAMPLE))
    with pytest.raises(RecordingError, match="max_memory"):
        list(read(SAMPLE, max_memory=1000))


def test_a_recording_can_be_read_again() -> None:
    recording = tcprism.open(SAMPLE)
    assert list(recording) == list(recording)
    assert recording.trouble == []
    assert recording.facts.host == "demo"
    assert recording.ledger.lost == 0


def test_nonsense() -> None:
    with pytest.raises(UsageError, match="'nonsense' is not a kind"):
        tcprism.open(SAMPLE, kinds={"nonsense"})
    with pytest.raises(UsageError, match="is not a kind"):
        tcprism.Monitor(kinds={"nonsense"})
    with pytest.raises(tcprism.Error):
        tcprism.Filter(port="http")
    with pytest.raises(tcprism.Error):
        tcprism.open("/nonexistent")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"payload": 16385}, "payload: 16385 is not between 0 and 16384 bytes"),
        ({"payload": -1}, "payload: -1 is not"),
        ({"ring_size": 3072}, "ring size: 3072 is not between 65536 and 1073741824 bytes"),
        ({"ring_size": 2**30 + 1}, "ring size: 1073741825 is not"),
        ({"kinds": ["acked"]}, "add send"),
    ],
)
def test_what_no_trace_can_have(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said), tcprism.Monitor(**options):
        pass


def test_a_filter_says_what_it_is() -> None:
    assert tcprism.Filter(port=443) == tcprism.Filter(port=443)
    assert "port=443" in repr(tcprism.Filter(port=443))


def test_hooks_go_off_when_a_stage_fails_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    class Traced(Tracing):
        """Has one event, which comes when it is drained."""

        def __enter__(self) -> Self:
            self.left = [Batch([messages({})])]
            return self

        def __exit__(self, *_: object) -> None:
            calls.append("exit")

        def read(self) -> Batch:
            return Batch([])

        def stop(self) -> None:
            calls.append("stop")

        def drain(self) -> Batch:
            return self.left.pop() if self.left else Batch([])

    def fail(batch: Batch) -> Batch:
        raise ZeroDivisionError

    monkeypatch.setattr(tracing, "Tracing", Traced)
    with pytest.raises(ZeroDivisionError), tcprism.Monitor(stages=[fail]):
        pass
    assert calls[-1] == "exit"
