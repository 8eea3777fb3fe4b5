"""Chromium without a window, driven by Playwright, and how smoothly it scrolls a table."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from shutil import which
from typing import Any

from tests.support.netns import PATIENCE

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip

# Takes a number of frames, tens; resolves to frames a second at rest and while the table scrolls by
# ten rows a frame, how many rows that were, and the share of frames in which every row in sight had
# its text, the others waited for the server. Where the machine stalls, that is one long frame, and
# some that wait: so these are the medians of the frames, and of tens of frames.
SCROLLING = """async (count) => {
  const grid = document.querySelector('.grid');
  const there = (row) => row.children[0].textContent !== '…';
  const median = (values) => values.sort((a, b) => a - b)[values.length >> 1];
  const run = (step) => new Promise((done) => {
    const top = grid.scrollTop, times = [];
    const whole = [];
    const frame = (now) => {
      times.push(now);
      if (times.length > count) {
        const took = times.slice(1).map((time, index) => time - times[index]);
        const tens = Array.from({ length: count / 10 }, (_, ten) => whole.slice(10 * ten, 10 * ten + 10).filter(Boolean).length);
        done({ rate: 1000 / median(took), moved: (grid.scrollTop - top) / 28, drawn: median(tens) / 10 });
        return;
      }
      whole.push([...grid.querySelectorAll('.body .row')].every(there));
      grid.scrollTop += step;
      requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
  });
  const resting = await run(0);
  const scrolling = await run(280);
  return { resting: resting.rate, scrolling: scrolling.rate, moved: scrolling.moved, drawn: scrolling.drawn };
}"""  # noqa: E501


@contextmanager
def chromium() -> Iterator[Any]:
    """Run the browser. Raises LookupError where there is none, ImportError without Playwright."""
    from playwright.sync_api import expect, sync_playwright

    found = which("chromium") or which("chromium-browser")
    if not found:
        raise LookupError("there is no Chromium (Debian: chromium)")
    with sync_playwright() as driver:
        timeout = 1000 * PATIENCE  # milliseconds
        expect.set_options(timeout=timeout)
        started = driver.chromium.launch(executable_path=found, args=FLAGS, timeout=timeout)
        context = started.new_context

        def patient(**options: Any) -> Any:
            made = context(**options)
            made.set_default_timeout(timeout)
            return made

        started.new_context = patient
        yield started
        started.close()
