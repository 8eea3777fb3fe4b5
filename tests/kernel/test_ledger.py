"""The ledger balances, whatever is lost."""

import signal
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tests.support import hooks, workload
from tests.support.netns import Netns, namespace
from tests.support.tracer import Ledger, Tracer, tracing, tracing_all

CALLS = 20_000
TOO_MANY = 2_000  # for a ring of 64 KiB
OTHERS = 100
LOST = ("ring_full", "ring_busy", "map_full")


def flood(netns: Netns, port: int, count: int) -> None:
    """Make `count` sends and as many receives, as fast as they go."""
    command = netns.command(str(workload.build(64)), "flood", str(port), str(count), "64")
    subprocess.run(command, check=True, timeout=600)


def check_balance(ledger: Ledger, received: Counter[str]) -> None:
    for kind, row in ledger.items():
        lost = sum(row[name] for name in LOST)
        assert row["seen"] == row["filtered"] + row["submitted"] + lost, (kind, row)
        assert row["submitted"] == received[kind], (kind, row)


@pytest.fixture(scope="module")
def floods(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tracer]:
    """A flood, and a smaller one in another namespace, traced through 64 KiB by every hook."""
    directory = tmp_path_factory.mktemp("ledger")
    chosen = hooks.message_hooks()
    with namespace() as netns, namespace() as other:
        common = ["--kinds", "send,recv", "--ring-size", "64K", "--netns", netns.path]
        runs = {directory / hook: [*common, "--hooks", hook] for hook in chosen}
        with tracing_all(runs) as tracers:
            flood(other, 5000, OTHERS)
            for tracer in tracers:  # so that no ring is emptied meanwhile
                tracer.process.send_signal(signal.SIGSTOP)
            flood(netns, 5000, TOO_MANY)
            for tracer in tracers:
                tracer.process.send_signal(signal.SIGCONT)
    return dict(zip(chosen, tracers, strict=True))


@pytest.mark.parametrize("kind", ["send", "recv"])
@pytest.mark.parametrize("hook", hooks.message_hooks())
def test_a_flood_through_a_small_ring(hook: str, kind: str, floods: dict[str, Tracer]) -> None:
    """Most is lost; every call is accounted for all the same."""
    tracer = floods[hook]
    received = Counter(event["kind"] for event in tracer.events)
    row = tracer.ledger[kind]
    check_balance({kind: row}, received)
    assert row["seen"] - row["filtered"] + row["missed"] == TOO_MANY, row
    assert row["filtered"] >= OTHERS, row
    assert row["ring_full"] > 0, "the ring held all: the test proves nothing"
    assert "--ring-size" in "\n".join(tracer.stderr), "nothing says which option helps"


@pytest.mark.native
def test_a_flood_through_the_default_ring(netns: Netns, tmp_path: Path) -> None:
    """Nothing is lost, and the events are the calls."""
    with tracing(tmp_path / "events.json", "--kinds", "send,recv", "--netns", netns.path) as tracer:
        flood(netns, 5000, CALLS)
    received = Counter(event["kind"] for event in tracer.events)
    assert received == {"send": CALLS, "recv": CALLS}
    check_balance(tracer.ledger, received)


KINDS = {
    *("send", "recv", "acked", "transmit", "probe", "retransmit", "undo", "drop"),
    *("connect", "accept", "close", "reset", "state"),
}


@pytest.mark.native
def test_all_kinds(netns: Netns, tmp_path: Path) -> None:
    """Segments are accounted for as messages are."""
    with tracing(tmp_path / "events.json", "--kinds", "all", "--netns", netns.path) as tracer:
        flood(netns, 5000, 1000)
        netns.await_closed()
    ledger = tracer.ledger
    assert set(ledger) == KINDS
    check_balance(ledger, Counter(event["kind"] for event in tracer.events))
    assert ledger["transmit"]["submitted"] >= 1000
