#!/usr/bin/env python3
"""Write share/grafana/tcprism.json: the dashboard, a panel for each question below."""

import json
import sys
from pathlib import Path
from typing import Any

from tcprism.metrics import instruments as i
from tcprism.metrics.instruments import Instrument, label

OUTPUT = Path(__file__).resolve().parent.parent / "share/grafana/tcprism.json"

_WHO = label(i.PROCESS)
_PORT = label(i.PORT)
_CHOSEN = f'instance=~"$instance",{_WHO}=~"$process"'
_SOURCE = {"type": "prometheus", "uid": "${source}"}


def rate(instrument: Instrument, by: str, extra: str = "", suffix: str = "") -> str:
    """Return the rate of a counter, or of a part of a histogram, by labels."""
    name = f"{instrument.base}{suffix}" if suffix else instrument.prometheus
    return f"sum by ({by}) (rate({name}{{{_CHOSEN}{extra}}}[$__rate_interval]))"


def quantile(share: float, instrument: Instrument, by: str) -> str:
    """Return a quantile of a histogram, by labels."""
    return f"histogram_quantile({share}, {rate(instrument, f'{by}, le', suffix='_bucket')})"


def own(instrument: Instrument) -> str:
    """Return the rate of a counter that has no process."""
    return f'rate({instrument.prometheus}{{instance=~"$instance"}}[$__rate_interval])'


PROCESS_AND_PORT = f"{_WHO}, {_PORT}"
_SHOWN = f"{{{{{_WHO}}}}} :{{{{{_PORT}}}}}"
ROWS: dict[str, list[tuple[str, str, str, str]]] = {
    "Requests": [
        ("HTTP requests answered", "reqps", rate(i.HTTP_SERVER, PROCESS_AND_PORT, "", "_count"),
         _SHOWN),
        ("of these, failed", "percentunit",
         rate(i.HTTP_SERVER, PROCESS_AND_PORT, ',error_type!=""', "_count")
         + " / " + rate(i.HTTP_SERVER, PROCESS_AND_PORT, "", "_count"), _SHOWN),
        ("99th percentile of their time", "s", quantile(0.99, i.HTTP_SERVER, PROCESS_AND_PORT),
         _SHOWN),
        ("Where the time of requests goes", "s",
         rate(i.REQUEST_TIME, "tcprism_request_part"), "{{tcprism_request_part}}"),
        ("99th percentile of statements", "s",
         quantile(0.99, i.DATABASE, f"{_WHO}, db_system_name"),
         f"{{{{{_WHO}}}}} {{{{db_system_name}}}}"),
    ],
    "Connections": [
        ("Established", "cps", rate(i.SUCCESSES, PROCESS_AND_PORT), _SHOWN),
        ("Failed", "cps", rate(i.FAILURES, f"{PROCESS_AND_PORT}, error_type"),
         _SHOWN + " {{error_type}}"),
        ("Open", "short",
         f"sum by ({PROCESS_AND_PORT}, tcp_state) ({i.OPEN.prometheus}{{{_CHOSEN}}})",
         _SHOWN + " {{tcp_state}}"),
        ("Resets", "cps", rate(i.RESETS, f"{PROCESS_AND_PORT}, network_io_direction"),
         _SHOWN + " {{network_io_direction}}"),
    ],
    "The network": [
        ("Round trip, 95th percentile", "s", quantile(0.95, i.RTT, "tcprism_peer"),
         "{{tcprism_peer}}"),
        ("Segments sent again", "pps",
         rate(i.RETRANSMITS, "tcprism_peer, network_tcp_retransmit_type"),
         "{{tcprism_peer}} {{network_tcp_retransmit_type}}"),
        ("Segments dropped here", "pps", rate(i.DROPS, "tcprism_drop_reason"),
         "{{tcprism_drop_reason}}"),
        ("Bytes", "Bps", rate(i.IO, f"{_WHO}, network_io_direction"),
         f"{{{{{_WHO}}}}} {{{{network_io_direction}}}}"),
        ("What holds data up", "s", rate(i.LIMITED, f"{_WHO}, tcprism_limit"),
         f"{{{{{_WHO}}}}} {{{{tcprism_limit}}}}"),
    ],
    "tcprism itself": [
        ("CPU", "percentunit", own(i.CPU), "tcprism {{instance}}"),
        ("Its BPF programs", "percentunit", own(i.BPF), "{{instance}}"),
        ("Memory", "bytes", f'{i.MEMORY.prometheus}{{instance=~"$instance"}}', "{{instance}}"),
        ("Events lost", "cps", own(i.LOST),
         "{{tcprism_event_kind}} {{tcprism_event_outcome}}"),
    ],
}  # fmt: skip


def render() -> str:
    """Return the dashboard."""
    board = {
        "title": "tcprism",
        "uid": "tcprism",
        "tags": ["tcp", "network"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "",
        "annotations": {"list": []},
        "links": [],
        "templating": {"list": _variables()},
        "panels": _panels(),
    }
    return json.dumps(board, indent=2) + "\n"


def _variables() -> list[dict[str, Any]]:
    source = {
        "name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus",
        "refresh": 1, "current": {}, "options": [], "hide": 0,
    }  # fmt: skip
    values = {
        "instance": (f"label_values({i.MEMORY.prometheus}, instance)", "Host"),
        "process": (f"label_values({i.SUCCESSES.prometheus}, {_WHO})", "Process"),
    }
    return [source, *(_variable(name, *value) for name, value in values.items())]


def _variable(name: str, query: str, shown: str) -> dict[str, Any]:
    return {
        "name": name, "label": shown, "type": "query", "datasource": _SOURCE,
        "query": {"query": query, "refId": name}, "refresh": 2, "sort": 1, "multi": True,
        "includeAll": True, "allValue": ".*", "current": {"text": "All", "value": "$__all"},
        "options": [], "hide": 0,
    }  # fmt: skip


def _panels() -> list[dict[str, Any]]:
    panels: list[dict[str, Any]] = []
    top = 0
    for title, questions in ROWS.items():
        place = {"x": 0, "y": top, "w": 24, "h": 1}
        row = {"id": len(panels) + 1, "type": "row", "title": title, "collapsed": False,
               "gridPos": place, "panels": []}  # fmt: skip
        panels.append(row)
        top += 1
        for number, question in enumerate(questions):
            place = {"x": 8 * (number % 3), "y": top + 8 * (number // 3), "w": 8, "h": 8}
            panels.append(_panel(len(panels) + 1, place, *question))
        top += 8 * -(-len(questions) // 3)
    return panels


def _panel(
    number: int, place: dict[str, int], title: str, unit: str, query: str, legend: str
) -> dict[str, Any]:
    return {
        "id": number,
        "type": "timeseries",
        "title": title,
        "datasource": _SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [
            {
                "refId": "A",
                "datasource": _SOURCE,
                "expr": query,
                "legendFormat": legend,
                "exemplar": "_bucket" in query,
            }
        ],
    }


if __name__ == "__main__":
    OUTPUT.write_text(render())
    sys.exit(0)
