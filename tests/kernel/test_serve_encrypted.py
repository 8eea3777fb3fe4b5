"""An encrypted recording of `tcprism serve` that is stopped amid a burst is whole."""

from __future__ import annotations

import threading
import time
from collections import Counter
from pathlib import Path

import pytest

import tcprism
from tests.support.conversation import connected, ping_pong
from tests.support.netns import Netns
from tests.support.serving import serving

pytestmark = pytest.mark.native

ENOUGH = 5_000  # events, of some hundred bytes: several blocks of the encrypted file


def test_the_file_is_whole(netns: Netns, tmp_path: Path) -> None:
    identity = pytest.importorskip("pyrage").x25519.Identity.generate()
    place, key = tmp_path / "recordings", tmp_path / "key"
    key.write_text(str(identity))
    ended = threading.Event()
    options = ("--record", str(place), "--encrypt-to", str(identity.to_public()))
    with (
        serving("--kinds", "send,recv", "--payload", "256", *options, "--netns", netns.path)
        as server,
        connected(netns) as (client, end),
    ):  # fmt: skip

        def talk() -> None:
            while not ended.is_set():
                ping_pong(client, end)

        talking = threading.Thread(target=talk)
        talking.start()
        try:
            while server.sum("tcprism_events_total", tcprism_event_outcome="received") < ENOUGH:
                time.sleep(0.1)
            status = server.stop()
        finally:
            ended.set()
            talking.join()
    (folder,) = place.iterdir()
    recording = tcprism.open(folder, identity=key)
    rows: Counter[str] = Counter()
    for batch in recording.batches():
        rows.update(map(str, batch["kind"]))
    assert (status, recording.trouble, recording.damaged) == (0, [], False), server.said
    entries = {entry.kind: entry for entry in recording.ledger.entries}
    for kind in ("send", "recv"):
        assert rows[kind] == entries[kind].received > 0
        assert entries[kind].balances()
