"""What notebooks show, and the example, executed."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

import tcprism
from tcprism.events import Batch
from tcprism.events._wire import EventKind
from tcprism.events.preview import preview
from tcprism.events.units import counted
from tests.support.netns import PATIENCE

from .asked import CLIENT, asked
from .million import million
from .page import MARKUP
from .recordings import written
from .records import messages
from .session import START

NOTEBOOK = Path(__file__).parents[2] / "examples/recording.ipynb"
SAMPLE = str(files("tcprism").joinpath("sample.tcpr"))


def parsed(html: str) -> ElementTree.Element:
    """Return HTML as a tree: what is shown must be well-formed."""
    return ElementTree.fromstring(f"<x>{html.replace('&ensp;', ' ')}</x>")


def shown(thing: Any) -> ElementTree.Element:
    return parsed(thing._repr_html_())


def texts(tree: ElementTree.Element, of: str) -> list[str]:
    return ["".join(cell.itertext()) for cell in tree.iter(of)]


def areas(tree: ElementTree.Element) -> dict[str, float]:
    """Return the sum of the bars of each kind, by its name in the legend."""
    legend = [(span.attrib["style"], (span.tail or "").strip()) for span in tree.iter("span")]
    names = {style.removeprefix("color:"): re.sub("over .*", "", name) for style, name in legend}
    return {
        names[path.attrib["fill"]].strip(): sum(
            float(high) for high in re.findall(r"v([\d.]+)", path.attrib["d"])
        )
        for path in tree.iter("path")
    }


def test_the_bars_are_the_events() -> None:
    """As high as there are many: the tallest bar, of one hundred events, is the chart's height."""
    many = [{**CLIENT, "kind": EventKind.SEND, "ts_ns": START + n, "bytes": n} for n in range(100)]
    few = [{**CLIENT, "kind": EventKind.RECV, "ts_ns": START + 10**9, "bytes": 7}] * 50
    tree = shown(Batch([messages(*many, *few)]))
    found = areas(tree)
    assert found["send"] == pytest.approx(90, abs=0.2)
    assert found["recv"] == pytest.approx(45, abs=0.2)
    assert "130 more events" in "".join(tree.itertext())


def test_a_recording_is_shown_and_can_still_be_read() -> None:
    recording = tcprism.open(SAMPLE)
    tree = shown(recording)
    count = sum(len(batch) for batch in recording.batches())
    assert f": {counted(count, 'event')}" in "".join(tree.itertext())
    cells = texts(tree, "td")
    sends = sum(1 for event in tcprism.open(SAMPLE, kinds={"send"}))
    assert cells[cells.index("send") + 1] == str(sends)
    assert len(list(tree.iter("svg"))) == 1


def test_a_long_recording_is_looked_at_in_part() -> None:
    html = preview(million(300_000), "long")
    assert "the first 200,000 events" in html
    assert preview((), "nothing") == "<p>nothing: no events</p>"


def test_requests_and_explanations_are_shown(tmp_path: Path) -> None:
    path = written(tmp_path / "asked.tcpr", asked())
    requests = tcprism.requests(path)
    assert "10 events" in "".join(shown(requests).itertext())
    assert sum(map(len, requests.batches())) == 10  # they are still there
    found = tcprism.explain(SAMPLE)
    cells = texts(shown(found), "td")
    assert {verdict.proof for one in found for verdict in one.verdicts} <= set(cells)


def test_markup_stays_text() -> None:
    one = {**CLIENT, "kind": EventKind.SEND, "ts_ns": START, "comm": MARKUP.encode()[:15]}
    tree = parsed(preview([Batch([messages({**one, "payload": MARKUP.encode()})])], MARKUP))
    assert not list(tree.iter("img"))
    assert MARKUP in "".join(tree.itertext())


def test_a_monitor_that_does_not_run() -> None:
    assert "with" in texts(shown(tcprism.Monitor()), "code")


def test_the_example_runs(tmp_path: Path) -> None:
    """Over sockets in the file system: of free ports, another program may take one at any time."""
    nbclient = pytest.importorskip("nbclient")
    config: Any = pytest.importorskip("traitlets.config").Config()
    pytest.importorskip("ipykernel")
    pytest.importorskip("pandas")
    nbformat: Any = pytest.importorskip("nbformat")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    config.KernelManager.transport = "ipc"
    config.KernelManager.connection_file = str(tmp_path / "kernel.json")
    nbclient.NotebookClient(
        notebook, config=config, timeout=PATIENCE, startup_timeout=PATIENCE
    ).execute()
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", ())]
    assert not [out for out in outputs if out.output_type == "stream"]
    shown = [out.data["text/html"] for out in outputs if out.output_type == "execute_result"]
    assert len(shown) == 5
    assert "<svg" in shown[0]
    assert "POST" in shown[3]
    assert "tlp" in shown[4]
