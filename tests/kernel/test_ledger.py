"""The ledger balances, whatever is lost."""

import subprocess
from collections import Counter
from pathlib import Path

import pytest

from . import hooks, workload
from .netns import Netns, namespace
from .tracer import Ledger, tracing

CALLS = 20_000
LOST = ("ring_full", "map_full")


def flood(netns: Netns, port: int, count: int) -> None:
    """Make `count` sends and as many receives, as fast as they go."""
    command = netns.command(str(workload.build(64)), "flood", str(port), str(count), "64")
    subprocess.run(command, check=True, timeout=120)


def check_balance(ledger: Ledger, received: Counter[str]) -> None:
    for kind, row in ledger.items():
        lost = sum(row[name] for name in LOST)
        assert row["seen"] == row["filtered"] + row["submitted"] + lost, (kind, row)
        assert row["submitted"] == received[kind], (kind, row)


@pytest.mark.parametrize("hook", hooks.message_hooks())
def test_a_flood_through_a_small_ring(hook: str, netns: Netns, tmp_path: Path) -> None:
    """With 64 KiB most is lost; every call is accounted for all the same."""
    arguments = ("--hooks", hook, "--kinds", "send,recv", "--ring-size", str(64 << 10))
    with namespace() as other:
        with tracing(tmp_path / "events.json", "--netns", netns.path, *arguments) as tracer:
            flood(other, 5000, 100)
            flood(netns, 5000, CALLS)
        ledger = tracer.ledger
    check_balance(ledger, Counter(event["kind"] for event in tracer.events))
    for kind in ("send", "recv"):
        row = ledger[kind]
        assert row["seen"] - row["filtered"] == CALLS, row
        assert row["filtered"] >= 100, row
        assert row["ring_full"] > 0, "the ring held all: the test proves nothing"
    assert "--ring-size" in "\n".join(tracer.stderr), "nothing says which option helps"


def test_a_flood_through_the_default_ring(netns: Netns, tmp_path: Path) -> None:
    """Nothing is lost, and the events are the calls."""
    with tracing(tmp_path / "events.json", "--kinds", "send,recv", "--netns", netns.path) as tracer:
        flood(netns, 5000, CALLS)
    received = Counter(event["kind"] for event in tracer.events)
    assert received == {"send": CALLS, "recv": CALLS}
    check_balance(tracer.ledger, received)


def test_all_kinds(netns: Netns, tmp_path: Path) -> None:
    """Segments are accounted for as messages are."""
    with tracing(tmp_path / "events.json", "--kinds", "all", "--netns", netns.path) as tracer:
        flood(netns, 5000, 1000)
        netns.await_closed()
    ledger = tracer.ledger
    assert set(ledger) == {"send", "recv", "transmit", "retransmit"}
    check_balance(ledger, Counter(event["kind"] for event in tracer.events))
    assert ledger["transmit"]["submitted"] >= 1000
