"""Recordings by somebody who means harm, through every command that reads one.

No traceback, no byte that a terminal could take for a command, an exit status that tells the truth,
and bounds for time and memory.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tcprism.events import Batch, Part
from tcprism.events.kinds import RECORDS
from tcprism.recording.notes import encode, encode_facts
from tcprism.recording.schema import schema, to_record_batch

from . import hostile
from .command_server import RAW, Result, Server, server
from .recordings import FACTS

READABLE = [
    ["replay"],
    ["replay", "--format", "json"],
    ["replay", "--format", "csv"],
    ["replay", "--payload-style", "hex", "-v"],
    ["replay", "--count-only"],
    ["replay", "--as", "connections"],
    ["replay", "--as", "retransmits"],
    ["replay", "--duration", "1"],
    ["export", "--to", "csv", "-o", "-"],
    ["export", "--to", "json", "-o", "-"],
    ["query", "SELECT * FROM events"],
    ["query", "--format", "csv", "SELECT * FROM events"],
    ["query", "--format", "json", "SELECT * FROM messages"],
    ["query", "retransmits"],
    ["explain"],
    ["explain", "--format", "json", "--all"],
    ["top", "--plain"],
    ["top", "--format", "json"],
]
BINARY = [
    ["export", "--to", "pcapng", "--packets", "segments", "-o", "-"],
    ["export", "--to", "pcapng", "--packets", "messages", "-o", "-"],
    ["export", "--to", "arrow", "-o", "-"],
    ["export", "--to", "parquet", "-o", "-"],
]
MUTATIONS = [
    hostile.with_damaged_bytes,
    hostile.with_damaged_notes,
    hostile.with_damaged_columns,
]
MEGABYTE = 1 << 20
OURS = re.compile("|".join("…▁▂▃▄▅▆▇█").encode())  # what `top` cuts texts with, and its charts


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server(tmp_path_factory.mktemp("commands")) as running:
        yield running


def ask(commands: Server, command: list[str], path: Path) -> Result:
    """Run a command that reads a recording, and check what holds for all of them."""
    name, *options = command
    result = commands.run(name, path, *options)
    assert b"Traceback" not in result.errors, result.errors.decode()
    assert result.status in (0, 1, 2), (result.status, result.errors[-2000:])
    assert not RAW.search(result.errors.replace(b"\n", b""))
    if command in READABLE:
        shown = OURS.sub(b"", result.output).replace(b"\n", b"")
        assert not RAW.search(shown)
    wrong = any(word in result.errors for word in (b"damaged", b"cannot be read", b"cannot read"))
    assert wrong == (result.status == 1), (result.status, result.errors)
    if result.status:
        last = result.errors.splitlines()[-1]
        assert last.startswith(b"tcprism: ")
    return result


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,  # reproducible
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.integers(0, 1 << 30))
def test_whatever_a_recording_says(commands: Server, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    path = tmp_path / "run.tcpr"
    path.write_bytes(chance.choice(MUTATIONS)(chance))
    ask(commands, chance.choice(READABLE + BINARY), path)


@pytest.mark.parametrize("command", READABLE + BINARY, ids=" ".join)
def test_a_recording_without_a_batch(commands: Server, command: list[str], tmp_path: Path) -> None:
    path = tmp_path / "empty.tcpr"
    head, _ = hostile.read(hostile.honest(0))
    path.write_bytes(hostile.written(head, []))
    ask(commands, command, path)


ROWS = 4099  # a number that nothing else in the file is


def messages_of(rows: int, width: int) -> bytes:
    """Return a recording of messages with payloads that hardly take room in the file."""
    table = np.zeros(rows, RECORDS["message"])
    table["family"], table["payload_length"] = 4, width
    batch = to_record_batch(Batch([Part(table, hostile.zeros(rows, width))]))
    notes = encode({"clock_offset_ns": 0, "end": True})
    return hostile.written(schema().with_metadata(encode_facts(FACTS)), [(batch, notes)])


@pytest.mark.parametrize("command", [["replay"], ["explain"], ["top", "--plain"], ["query", "rtt"]])
def test_what_unpacks_to_more_than_fits(
    commands: Server, command: list[str], tmp_path: Path
) -> None:
    """A file of a few kilobytes: refused before there is room for it, and read if one asks."""
    small, path = tmp_path / "small.tcpr", tmp_path / "run.tcpr"
    small.write_bytes(messages_of(1, 1))
    path.write_bytes(messages_of(ROWS, 16384))  # 67 MB
    assert path.stat().st_size < MEGABYTE
    refused = ask(commands, [*command, "--max-memory", "256M"], path)
    assert refused.status == 1
    assert b"--max-memory" in refused.errors
    assert refused.memory < ask(commands, command, small).memory + 32 * MEGABYTE
    assert ask(commands, ["replay", "--count-only"], path).status == 0


@pytest.mark.parametrize("number", [ROWS, 8 * ROWS, 16 * ROWS])
@pytest.mark.parametrize("declared", [1 << 34, 1 << 40, (1 << 63) - 1, (1 << 64) - 1])
def test_sizes_that_are_declared_and_not_there(
    commands: Server, number: int, declared: int, tmp_path: Path
) -> None:
    """Rows, and what columns of 8 and 16 bytes unpack to, in the headers of the batch.

    More than a process can address is damage; no option lifts that.
    """
    data = messages_of(ROWS, 1)
    before, after = (size.to_bytes(8, "little") for size in (number, declared))
    assert before in data
    path = tmp_path / "run.tcpr"
    path.write_bytes(data.replace(before, after))
    refused = ask(commands, ["replay"], path)
    assert refused.status == 1
    assert b"--max-memory" in refused.errors or (
        declared > 1 << 34 and b"damaged" in refused.errors
    )
    assert refused.memory < commands.run("--version").memory + 64 * MEGABYTE


def test_more_names_than_fit(commands: Server, tmp_path: Path) -> None:
    """Names stay in memory; a million of them are refused."""
    batch = pa.RecordBatch.from_pylist([], schema())
    head = schema().with_metadata(encode_facts(FACTS))
    many = [
        (batch, encode({"names": {"drop_reason": {str(n + start): None for n in range(5000)}}}))
        for start in range(0, 200_000, 5000)
    ]
    path = tmp_path / "run.tcpr"
    path.write_bytes(hostile.written(head, many))
    assert ask(commands, ["replay", "--max-memory", "64M"], path).status == 1
