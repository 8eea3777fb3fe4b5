"""What all tests share: markers, and skips that may not happen where everything must run."""

import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.browser import chromium

HERE = Path(__file__).parent
NEED_ROOT = {HERE / "bpf", HERE / "kernel"}  # they load programs
REQUIRED = {name for name in os.environ.get("TCPRISM_REQUIRE", "").split(",") if name}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "kernel: needs root and loads BPF programs")
    config.addinivalue_line("markers", "browser: needs Chromium")
    config.addinivalue_line("markers", "native: not worth repeating in the virtual machines")
    config.addinivalue_line("markers", "vm: boots virtual machines")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if NEED_ROOT & {*item.path.parents}:
            item.add_marker("kernel")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("kernel") and os.geteuid() != 0:
        pytest.skip("needs root")


@pytest.fixture(autouse=True)
def hang_up() -> Iterator[None]:
    """Under nohup SIGHUP is ignored, and programs that tests start inherit that."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Make a failure of a skip where TCPRISM_REQUIRE names the test's marker."""
    report = yield
    markers = {marker.name for marker in item.iter_markers()}
    if report.skipped and not hasattr(report, "wasxfail") and markers & REQUIRED:
        report.outcome = "failed"
        report.longrepr = f"TCPRISM_REQUIRE forbids this skip: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium without a window: all tests of the page share it."""
    pytest.importorskip("playwright.sync_api")
    try:
        with chromium() as started:
            yield started
    except LookupError as error:
        pytest.skip(str(error))
