"""What the package brings for Prometheus, Grafana and systemd, checked by their own tools."""

from __future__ import annotations

import copy
import importlib
import json
import operator
import pkgutil
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import pytest

from tcprism.metrics.instruments import ATTRIBUTES, INSTRUMENTS, label

SHARE = Path(__file__).resolve().parents[2] / "share"
RULES = SHARE / "prometheus/tcprism.rules.yml"
UNIT = SHARE / "systemd/tcprism.service"
DASHBOARD = json.loads((SHARE / "grafana/tcprism.json").read_text())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]

METRICS = {
    name
    for each in INSTRUMENTS
    for name in (
        (f"{each.base}_bucket", f"{each.base}_count", f"{each.base}_sum")
        if each.buckets
        else (each.prometheus,)
    )
}
LABELS = {*map(label, ATTRIBUTES), "instance", "le", "job"}


# That OpenTelemetry does not have: docs/metrics.md tells of them.
PROPOSED = ("system.network.tcp.", "network.tcp.")
OURS = ("tcprism.", "k8s.workload", "systemd.unit", "tcp.state")


def _conventions(kind: str) -> set[str]:
    """Return the names of metrics or attributes in the package that is made of the conventions."""
    package = pytest.importorskip(f"opentelemetry.semconv._incubating.{kind}")
    modules = [
        importlib.import_module(f"{package.__name__}.{module.name}")
        for module in pkgutil.iter_modules(package.__path__)
    ]
    return {each for module in modules for each in vars(module).values() if isinstance(each, str)}


@pytest.mark.parametrize(
    ("kind", "names"),
    [("metrics", [each.name for each in INSTRUMENTS]), ("attributes", [*ATTRIBUTES])],
)
def test_what_is_not_opentelemetrys_is_said_to_be_ours(kind: str, names: list[str]) -> None:
    theirs = [name for name in names if not name.startswith((*PROPOSED, *OURS))]
    assert theirs
    assert {*theirs} <= _conventions(kind)
    assert not {*names} - {*theirs} & _conventions(kind)


def _promtool(*arguments: str) -> str:
    if not shutil.which("promtool"):
        pytest.skip("needs the package prometheus")
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _named(text: str) -> set[str]:
    return set(re.findall(r"\b(?:tcprism|system_network_tcp|http|db)_\w+", text))


def test_prometheus_accepts_the_rules() -> None:
    assert "SUCCESS: 10 rules" in _promtool("check", "rules", str(RULES))


@pytest.mark.parametrize("text", [RULES.read_text(), *QUERIES])
def test_every_name_is_that_of_a_metric_or_a_label(text: str) -> None:
    found = _named(text)
    assert found & METRICS
    assert found <= METRICS | LABELS


def test_prometheus_accepts_the_queries_of_the_dashboard(tmp_path: Path) -> None:
    rules = [
        {
            "record": f"panel:{number}",
            "expr": re.sub(r"\$__rate_interval", "5m", query).replace("$", ""),
        }
        for number, query in enumerate(QUERIES)
    ]
    file = tmp_path / "panels.yml"
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))  # JSON is YAML
    assert f"SUCCESS: {len(QUERIES)} rules" in _promtool("check", "rules", str(file))


def _unknown(ours: Any, grafanas: Any, at: str = "") -> Iterator[str]:
    """Yield where a dashboard has what Grafana's types have no place for."""
    if isinstance(ours, dict) and isinstance(grafanas, dict):
        for key, value in ours.items():
            yield from _unknown(value, grafanas.get(key), f"{at}.{key}")
    elif isinstance(ours, list) and isinstance(grafanas, list) and len(ours) == len(grafanas):
        for number, pair in enumerate(zip(ours, grafanas, strict=True)):
            yield from _unknown(*pair, f"{at}[{number}]")
    elif ours != grafanas:
        yield at


def _read_by_grafana(dashboard: Any) -> Any:
    """Return what is left of a dashboard in the types that are generated from Grafana's schema."""
    models = pytest.importorskip("grafana_foundation_sdk.models.dashboard")
    cog = pytest.importorskip("grafana_foundation_sdk.cog")
    importlib.import_module("grafana_foundation_sdk.cog.plugins").register_default_plugins()
    encoder = importlib.import_module(f"{cog.__name__}.encoder").JSONEncoder
    return json.loads(encoder().encode(models.Dashboard.from_json(dashboard)))


def test_grafanas_schema_has_all_of_the_dashboard() -> None:
    assert list(_unknown(DASHBOARD, _read_by_grafana(DASHBOARD))) == []


@pytest.mark.parametrize(
    ("place", "at"),
    [
        ((), ".panel"),
        (("panels", 1, "fieldConfig", "defaults"), ".panels[1].fieldConfig.defaults.panel"),
        (("panels", 1, "targets", 0), ".panels[1].targets[0].panel"),
        (("templating", "list", 1), ".templating.list[1].panel"),
    ],
)
def test_a_key_that_grafanas_schema_does_not_have(place: tuple[Any, ...], at: str) -> None:
    """The check can fail."""
    wrong = copy.deepcopy(DASHBOARD)
    reduce(operator.getitem, place, wrong)["panel"] = 1
    assert list(_unknown(wrong, _read_by_grafana(wrong))) == [at]


def test_the_service_exposes_little() -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("needs systemd-analyze")
    command = ["systemd-analyze", "security", "--offline=true", str(UNIT)]
    said = subprocess.run(command, capture_output=True, text=True)
    level = re.search(r"Overall exposure level for tcprism.service: ([\d.]+)", said.stdout)
    if not level:
        pytest.skip(f"this systemd-analyze cannot tell: {said.stderr.strip()}")
    assert float(level[1]) < 2.0
