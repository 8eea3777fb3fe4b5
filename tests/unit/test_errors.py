"""The exception tree is as drawn."""

from __future__ import annotations

import inspect
import re

import pytest

from tcprism import errors


def drawn() -> tuple[dict[str, str], dict[str, int]]:
    """Read the drawing: each class's parent, and the exit statuses that are told."""
    parents, statuses, above = {}, {}, {}
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"    ([│├└─ ]*)([A-Z]\w+)\s*(.*)", line)
        if not match:
            continue
        depth, name = len(match[1]) // 4, match[2]
        above[depth] = name
        parents[name] = above[depth - 1] if depth else "Exception"
        if status := re.search(r"exit status ([0-9])", match[3]):
            statuses[name] = int(status[1])
    return parents, statuses


def classes() -> dict[str, type[errors.Error]]:
    """Return every class of the module."""
    return dict(inspect.getmembers(errors, inspect.isclass))


def test_the_tree() -> None:
    parents, statuses = drawn()
    assert {name: found.__mro__[1].__name__ for name, found in classes().items()} == parents
    assert len(parents) == 11
    assert statuses == {"UsageError": 2, "RecordingError": 1, "MachineError": 1}


@pytest.mark.parametrize(("name", "status"), drawn()[1].items())
def test_exit_statuses_hold_for_the_classes_below_too(name: str, status: int) -> None:
    top = classes()[name]
    below = [found for found in classes().values() if issubclass(found, top)]
    assert {found.exit_status for found in below} == {status}
