"""The generated pages are what their generators write."""

from types import ModuleType

import pytest

import generate_api_doc
import generate_dashboard
import generate_docs
import generate_event
import generate_hooks_doc
import generate_metrics_doc

GENERATORS = [
    generate_api_doc,
    generate_dashboard,
    generate_docs,
    generate_event,
    generate_hooks_doc,
    generate_metrics_doc,
]


@pytest.mark.parametrize("generator", GENERATORS, ids=lambda module: module.__name__)
def test_page_is_up_to_date(generator: ModuleType) -> None:
    assert generator.OUTPUT.read_text() == generator.render(), "run `make docs`"
