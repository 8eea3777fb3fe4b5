"""Who sends how much: trace this machine for some seconds, batch by batch.

Run as root: python examples/monitor.py [SECONDS]
"""

import sys
import threading
from collections import Counter

import tcprism


def main(seconds: float = 5) -> None:
    """Print the bytes that each process sent, the most first."""
    sent: Counter[str] = Counter()
    with tcprism.Monitor(kinds={"send"}, payload=0) as monitor:
        threading.Timer(seconds, monitor.stop).start()
        for batch in monitor.batches():  # columns are NumPy arrays
            for comm in set(batch["comm"]):
                sent[comm] += int(batch["bytes"][batch["comm"] == comm].sum())
    for comm, size in sent.most_common(10):
        print(f"{size:>12} {comm}")
    if monitor.ledger().lost:
        print(f"{monitor.ledger().lost} events were lost", file=sys.stderr)


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
