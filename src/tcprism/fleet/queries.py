"""The built-in queries over all hosts: those of a recording, in ClickHouse's words, and more."""

from __future__ import annotations

import re

from tcprism.fleet.tables import OF_FAMILY, VIEWS
from tcprism.recording.queries import QUERIES, NamedQuery

_TABLES = ("events", *VIEWS, *(table.name for table in OF_FAMILY.values()))
_LATEST = r"FROM (SELECT * FROM \1 WHERE time > now() - INTERVAL 1 HOUR)"

# What differs: the words, that hosts have each their network namespaces, and that there is no end
# of rows.
_WORDS = (
    (r"quantile_cont\((\w+), ([\d.]+)\)", r"quantileExactInclusive(\2)(\1)"),
    (r"\bmode\((\w+)\)", r"topK(1)(\1)[1]"),
    (r"\bnetns, ", "host, netns, "),
    (r"SELECT time, ", "SELECT time, host, "),
    (rf"FROM ({'|'.join(_TABLES)})\b", _LATEST),
)


def _translated(query: NamedQuery) -> NamedQuery:
    sql = query.sql
    for pattern, words in _WORDS:
        sql = re.sub(pattern, words, sql)
    return NamedQuery(f"{query.title}, in the last hour", sql)


def fleet_queries() -> dict[str, NamedQuery]:
    """Return the queries by name: of a recording's those that ask for no message or segment."""
    ours = {
        name: query
        for name, query in QUERIES.items()
        if not re.search(r"FROM (messages|segments)\b", query.sql)
    }
    return {name: _translated(query) for name, query in ours.items()}
