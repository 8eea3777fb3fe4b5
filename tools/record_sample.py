"""Record src/tcprism/sample.tcpr, which ships, from the demo's own network. Needs root."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from tcprism import Filter, Monitor, __version__
from tcprism.demo.traffic import Traffic
from tcprism.events import KINDS
from tcprism.events.facts import Facts
from tcprism.recording.writer import Writer

SAMPLE = Path(__file__).resolve().parent.parent / "src/tcprism/sample.tcpr"
SECONDS = 2.5
LOSS = 5.0  # per cent
PAYLOAD = 256


def main() -> int:
    """Trace the demo for a moment, whatever else happens on the machine."""
    facts = Facts(kinds=KINDS, payload=PAYLOAD, host="demo", tcprism=__version__)
    with Traffic(LOSS) as traffic, SAMPLE.open("wb") as file:
        writer = Writer(file, facts)
        with Monitor(KINDS, Filter(netns=traffic.pid), PAYLOAD) as monitor:
            traffic.start()
            threading.Timer(SECONDS, monitor.stop).start()
            for batch in monitor.batches():
                writer.write(batch)
        writer.note(monitor.ledger())
        writer.close()
    print(f"{writer.events} events, {writer.size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
