"""Libraries that do not come with tcprism alone: imported when used, missed with one sentence."""

from __future__ import annotations

from importlib import import_module
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
        library = module.partition(".")[0]
        raise ExtraMissing(
            f"this needs {library}, which is not here: run `pip install 'tcprism[{extra}]'`"
        ) from error
