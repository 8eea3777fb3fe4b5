"""Optional parts: libraries, and what other packages add through entry points."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from tcprism.errors import ExtraMissing


def pyarrow() -> Any:
    """Return the module pyarrow. Raises ExtraMissing."""
    return need("pyarrow", "arrow")


def need(module: str, extra: str) -> Any:
    """Import a library that an extra of tcprism brings. Raises ExtraMissing."""
    try:
        return import_module(module)
    except ImportError as error:
        raise _missing(module, extra) from error


def require(module: str, extra: str) -> None:
    """Raise ExtraMissing if a library is not here; do not import it, as that may start threads."""
    if find_spec(module) is None:
        raise _missing(module, extra)


def _missing(module: str, extra: str) -> ExtraMissing:
    library = module.partition(".")[0]
    return ExtraMissing(
        f"this needs {library}, which is not here: run `pip install 'tcprism[{extra}]'`"
    )


def plugin(group: str, name: str) -> Any:
    """Return what an installed package offers under a name, or None."""
    from importlib.metadata import entry_points  # as slow as a quarter of NumPy

    for entry in entry_points(group=group, name=name):
        return entry.load()
    return None


def load_plugins(group: str) -> None:
    """Import all that installed packages offer."""
    from importlib.metadata import entry_points

    for entry in entry_points(group=group):
        entry.load()


def plugins(group: str) -> list[str]:
    """Return the names under which installed packages offer something."""
    from importlib.metadata import entry_points

    return sorted(entry.name for entry in entry_points(group=group))
