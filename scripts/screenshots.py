#!/usr/bin/env python3
"""Take the pictures of `tcprism top` that the README shows, of the demo's own network. Needs root.

sudo .venv/bin/python scripts/screenshots.py
"""

import asyncio
from contextlib import closing
from pathlib import Path

from tcprism.demo.traffic import Traffic
from tcprism.diagnosis.feeds import Live
from tcprism.filters import Criteria, parse_netns
from tcprism.tui.app import Top
from tcprism.tui.model import Model

PICTURES = Path(__file__).resolve().parent.parent / "docs/pictures"
SIZE = (132, 28)
SECONDS = 15
# Name: the keys that lead there, and the seconds to wait then.
VIEWS = {"top": ((), SECONDS), "connection": (("enter",), SECONDS)}


async def take(model: Model) -> None:
    """Drive the screens and write a picture of each view."""
    app = Top(model, 1.0)
    async with app.run_test(size=SIZE) as pilot:
        for name, (keys, seconds) in VIEWS.items():
            await pilot.press(*keys)
            await asyncio.sleep(seconds)
            picture = app.export_screenshot(title=f"tcprism: {name}")
            Path(PICTURES, f"{name}.svg").write_text(picture)


def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    with Traffic(5) as traffic:
        traffic.start()
        only_ours = Criteria(netns=(parse_netns(str(traffic.pid)),))
        with closing(Live(only_ours)) as feed:
            asyncio.run(take(Model(feed, "out")))


if __name__ == "__main__":
    main()
