"""Recordings that only one reader can read."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tcprism
from tcprism.errors import RecordingError, UsageError
from tcprism.events import Batch
from tcprism.events.facts import Facts
from tcprism.recording import encryption
from tcprism.recording.encryption import Encrypted, recipients
from tcprism.recording.writer import Writer

from .records import messages

pyrage = pytest.importorskip("pyrage")

EVENTS, PAYLOAD = 20_000, b"nobody else may read this"


@pytest.fixture(autouse=True)
def _no_key() -> Iterator[None]:
    yield
    encryption._ours.clear()


def _keys(folder: Path, name: str = "key") -> tuple[str, Path]:
    """Make a key as age-keygen does; return its public part, and the file."""
    identity = pyrage.x25519.Identity.generate()
    path = folder / name
    path.write_text(f"# public key: {identity.to_public()}\n{identity}\n")
    return str(identity.to_public()), path


def _recorded(path: Path, key: str) -> Path:
    rows: list[dict[str, Any]] = [{"payload": PAYLOAD, "socket": n + 1} for n in range(EVENTS)]
    with path.open("wb") as file:
        encrypted = Encrypted(file, recipients([key]))
        writer = Writer(encrypted, Facts(("send",)))  # type: ignore[arg-type]
        writer.write(Batch([messages(*rows)]))
        writer.close()
        encrypted.close()
    return path


def test_only_the_key_opens_it(tmp_path: Path) -> None:
    public, key = _keys(tmp_path)
    path = _recorded(tmp_path / "run.tcpr", public)
    assert path.read_bytes().startswith(encryption.MAGIC)
    assert PAYLOAD not in path.read_bytes()
    with pytest.raises(
        RecordingError, match="it is encrypted, so give its key with --identity FILE"
    ):
        tcprism.open(path)
    recording = tcprism.open(path, identity=key)
    sockets = [int(one) for batch in recording.batches() for one in batch["socket"]]
    assert sockets == list(range(1, EVENTS + 1))
    assert not recording.damaged
    assert not recording.trouble
    assert PAYLOAD in {event.payload for event in tcprism.open(path, identity=key)}


def test_another_key_does_not(tmp_path: Path) -> None:
    path = _recorded(tmp_path / "run.tcpr", _keys(tmp_path)[0])
    _, other = _keys(tmp_path, "other")
    with pytest.raises(RecordingError, match="--identity has no key for it, or it is damaged"):
        tcprism.open(path, identity=other)


def test_columns_are_read_from_it(tmp_path: Path) -> None:
    pytest.importorskip("duckdb")
    public, key = _keys(tmp_path)
    encryption.use_identity(str(key))
    recording = tcprism.recording.reader.Recording(
        _recorded(tmp_path / "run.tcpr", public), fields={"time", "kind", "cgroup_id", "socket"}
    )
    assert sum(len(batch) for batch in recording.batches()) == EVENTS


@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_damage_is_said(damage: str, tmp_path: Path) -> None:
    public, key = _keys(tmp_path)
    path = _recorded(tmp_path / "run.tcpr", public)
    data = bytearray(path.read_bytes())
    if damage == "cut":
        data = data[: len(data) * 3 // 4]
    else:
        data[-1] ^= 1
    path.write_bytes(data)
    recording = tcprism.open(path, identity=key)
    assert sum(len(batch) for batch in recording.batches()) < EVENTS + 1
    (trouble,) = recording.trouble
    assert "damaged" in trouble or "cut off" in trouble


def test_what_is_no_key(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--encrypt-to: age1nobody is no key of age's"):
        recipients(["age1nobody"])
    secret = tmp_path / "secret"
    secret.write_text("AGE-SECRET-KEY-1NONE\n")
    with pytest.raises(UsageError, match="no key of age's") as failure:
        encryption.identities(str(secret))
    assert "1NONE" not in str(failure.value)
    secret.write_text("# nothing\n")
    with pytest.raises(UsageError, match="has no key"):
        encryption.identities(str(secret))


def test_a_disk_that_is_full_is_an_error_of_the_writer(tmp_path: Path) -> None:
    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            if self.tell() > 100_000:
                raise OSError(28, "No space left on device")
            return super().write(data)

    before = threading.active_count()
    encrypted = Encrypted(Full(), recipients([_keys(tmp_path)[0]]))
    with pytest.raises(OSError, match="No space left"):
        encrypted.write(bytes(1 << 24))
    with pytest.raises(OSError, match="No space left"):
        encrypted.close()
    assert threading.active_count() == before
