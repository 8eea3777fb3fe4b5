"""Report: the page as one file that needs no server, with the answers in it."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any

from tcprism.web.server import static_files, to_json
from tcprism.web.views import WINDOW_MAX, Views

REQUESTS_MAX = 2000
CONNECTIONS_MAX = 1000
REQUEST_AXES, CONNECTION_AXES = 100, 50
MARKS_MAX = 500  # of an axis

_WHOLE = ("summary", "overview", "map", "explain", "heatmap", "vocabulary")
_IMPORT = re.compile(r'^import (\{[^}]*\}) from "\./(\w+\.js)";$', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:const|class|function|async function) (\w+))", re.MULTILINE)
_NAME = re.compile(r"(?:const|class|function|async function) (\w+)")


def report(views: Views) -> bytes:
    """Return the HTML of what a store has by now."""
    files = {name: content.decode() for name, content in static_files().items()}
    style, script = files["style.css"], _bundle(files)
    policy = f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'"
    # In JSON a "<" may be written so; a script element ends at the first "</script".
    data = to_json(_answers(views)).decode().replace("<", "\\u003c")
    page = files["index.html"]
    for tag, inline in (
        (
            '<link rel="icon" href="/static/icon.svg">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        ),
        ('<link rel="stylesheet" href="/static/style.css">', f"<style>{style}</style>"),
        ('<script type="module" src="/static/main.js"></script>', ""),
        (
            "</body>",
            f'<script type="application/json" id="data">{data}</script>\n'
            f'<script type="module">{script}</script>\n</body>',
        ),
    ):
        before, found, after = page.partition(tag)
        if not found:
            raise ValueError(f"index.html lacks {tag}")
        page = before + inline + after
    return page.encode()


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _bundle(files: dict[str, str]) -> str:
    """Return the modules as one, each in a function of its own that returns what it exports."""
    written: dict[str, str] = {}

    def add(name: str) -> None:
        if name in written:
            return
        written[name] = ""  # before what it needs: there is no circle
        for _, needed in _IMPORT.findall(files[name]):
            add(needed)
        del written[name]
        code = files[name]
        exported = ", ".join(_EXPORT.findall(code))
        code = _IMPORT.sub(lambda found: f'const {found[1]} = modules["{found[2]}"];', code)
        code = _EXPORT.sub("", code)
        written[name] = (
            f'modules["{name}"] = await (async () => {{\n{code}\nreturn {{ {exported} }};\n}})();\n'
        )

    add("main.js")
    return "const modules = {};\n" + "".join(written.values())


def _answers(views: Views) -> dict[str, Any]:
    requests = _rows(views, "requests", REQUESTS_MAX, ("failed", "repeated", "slow", ""))
    connections = _rows(views, "connections", CONNECTIONS_MAX, ("failed", "repeated", ""))
    axes = {
        "request_of": _axes(views, "request", requests["rows"][:REQUEST_AXES]),
        "connection_of": _axes(views, "connection", connections["rows"][:CONNECTION_AXES]),
    }
    explained = {
        str(number): views.answer("explain", {"n": str(number)})
        for number in {
            one["connection"]["n"]
            for those in axes.values()
            for one in those.values()
            if one["connection"]
        }
    }
    whole = {name: views.answer(name, {}) for name in _WHOLE}
    left_out = [
        f"This report leaves {answer['total'] - len(answer['rows']):,} {name} out."
        for name, answer in (("requests", requests), ("connections", connections))
        if answer["total"] > len(answer["rows"])
    ]
    whole["summary"]["trouble"] += left_out
    return {
        **whole,
        **axes,
        "explain_of": explained,
        "requests": requests,
        "connections": connections,
    }


def _rows(views: Views, name: str, most: int, filters: tuple[str, ...]) -> dict[str, Any]:
    """Return rows: those of the first filters before others, of each the slowest or longest."""
    found: dict[int, Any] = {}
    order = "-took" if name == "requests" else "-retransmissions"
    total = 0
    for text in filters:
        first = 0
        while len(found) < most:
            query = {"filter": text, "sort": order, "first": str(first), "count": str(WINDOW_MAX)}
            answer = views.answer(name, query)
            total = answer["total"]
            found |= {
                row["n"]: row
                for row in answer["rows"][: most - len(found)]
                if row["n"] not in found
            }
            first += WINDOW_MAX
            if first >= answer["found"]:
                break
    return {"total": total, "rows": list(found.values())}


def _axes(views: Views, name: str, rows: list[Any]) -> dict[str, Any]:
    """Return the answers for some rows, with fewer marks."""
    found = {}
    for row in rows:
        answer = views.answer(name, {"n": str(row["n"])})
        if "marks" in answer:
            more = answer["marks"][MARKS_MAX:]
            answer["marks"], answer["left_out"] = (
                answer["marks"][:MARKS_MAX],
                answer["left_out"] + len(more),
            )
        found[str(row["n"])] = answer
    return found
