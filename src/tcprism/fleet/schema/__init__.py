"""The schema's versions: SQL files, each applied once and in order; then the views.

A file that was released never changes. `tools/generate_fleet.py` writes the next one when columns
of events are new.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.resources import files

_ROOT = files("tcprism.fleet.schema")
_CREATE = re.compile(r"CREATE TABLE IF NOT EXISTS (\w+)\n\(\n(.*?)\n\)\n", re.DOTALL)
_COLUMN = re.compile(r"^ +`(\w+)`", re.MULTILINE)
_ADD = re.compile(r"ALTER TABLE (\w+) ADD COLUMN IF NOT EXISTS `(\w+)`")

# How the tables remember which versions were applied; by init, before all else.
VERSIONS = """\
CREATE TABLE IF NOT EXISTS schema_versions
(
    `version` UInt32,
    `applied` DateTime('UTC') DEFAULT now(),
    `tcprism` LowCardinality(String)
)
ENGINE = MergeTree
ORDER BY version
"""


def versions() -> dict[int, str]:
    """Return the text of each version's file, in their order."""
    named = sorted(each.name for each in _ROOT.iterdir() if re.fullmatch(r"\d{4}\.sql", each.name))
    return {int(name[:4]): (_ROOT / name).read_text() for name in named}


def views() -> list[str]:
    """Return the text of each file of views."""
    folder = _ROOT / "views"
    found = sorted(each.name for each in folder.iterdir() if each.name.endswith(".sql"))
    return [(folder / name).read_text() for name in found]


def statements(text: str) -> Iterator[str]:
    """Yield the statements of a file: each ends with a semicolon at the end of a line."""
    for statement in text.split(";\n"):
        if statement.strip():
            yield statement.strip()


def columns() -> dict[str, set[str]]:
    """Return the columns of each table that all versions together make."""
    found: dict[str, set[str]] = {}
    for text in versions().values():
        for table, body in _CREATE.findall(text):
            found.setdefault(table, set()).update(_COLUMN.findall(body))
        for table, name in _ADD.findall(text):
            found[table].add(name)
    return found
