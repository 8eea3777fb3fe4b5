"""Signals are noted from the first line on: nothing is raised there, and the end comes."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib.resources import files
from pathlib import Path

import pytest

from tcprism import interrupts
from tcprism.interrupts import Interrupted

PATIENCE = 300.0
ROOT = Path(__file__).resolve().parents[2]
SCRIPT = str(ROOT / "bin/tcprism-python")
PACKAGE = str(files("tcprism"))
SAMPLE = str(files("tcprism").joinpath("sample.tcpr"))
BEFORE_OUR_LINES = f'File "{SCRIPT}", line 0, in <module>'  # Python enters the script
NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

STUCK = """
import ctypes, sys, time
from tcprism import interrupts
interrupts.note_signals()
{begin}
with interrupts.cleaning(lambda: print("cleaned", flush=True)):
    print("ready", flush=True)
    while True:
        ctypes.CDLL(None).sleep(60)
"""

REDACTS = """
import signal, time
from dataclasses import replace
from tcprism import interrupts
from tcprism.events import Batch
from tcprism.stages.redact import Redact
from tests.unit.records import messages

interrupts.note_signals()
interrupts.alive(silence={silence})
signal.raise_signal(signal.SIGTERM)
part = messages(*[dict(payload=b"password=hunter2&" * 3)] * 100)
count, took = 10, 0.0
while took < 1.2 * {silence}:
    batch = Batch([replace(part) for _ in range(count)])
    interrupts.alive(silence={silence})
    begun = time.monotonic()
    Redact()(batch)
    count, took = 2 * count, time.monotonic() - begun
print("in good order")
"""

# Each look of the thread that sees to the end is hours after the one before.
STOOD_STILL = """
import itertools, signal, time
from types import SimpleNamespace
from tcprism import interrupts

hours = itertools.count(step=10_000)
interrupts.time = SimpleNamespace(monotonic=lambda: next(hours))
interrupts.note_signals()
interrupts.alive(silence=3600)
signal.raise_signal(signal.SIGTERM)
while next(hours) < 1_000_000:
    time.sleep(0.01)
print("in good order")
"""


@pytest.fixture
def noted() -> Iterator[None]:
    with interrupts.noted():
        yield


@pytest.mark.usefixtures("noted")
@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_in_a_callback_is_not_lost(number: signal.Signals) -> None:
    """As while libbpf tells what it does: an exception there would be ignored."""
    compare = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
    calls = []

    def called(_one: int, _other: int) -> int:
        signal.raise_signal(number)
        calls.append(interrupts.asked())
        return 0

    ctypes.CDLL(None).qsort(ctypes.create_string_buffer(b"ab"), 2, 1, compare(called))
    assert calls == [number]
    with pytest.raises(Interrupted, match="while starting"):
        interrupts.check()


def test_a_batch_that_takes_long_to_redact_is_no_silence() -> None:
    """On a machine with much else to do a batch took a minute, and the run was ended amid it."""
    source = REDACTS.format(silence=1.5)
    command = [sys.executable, "-c", source]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE)
    assert (done.stdout, done.returncode) == ("in good order\n", 0), done.stderr


def test_a_machine_that_stalls_is_no_silence() -> None:
    """Whoever works could not tell that it goes on."""
    command = [sys.executable, "-c", STOOD_STILL]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.stdout, done.returncode) == ("in good order\n", 0), done.stderr


@pytest.mark.usefixtures("noted")
def test_what_has_begun_ends_in_good_order() -> None:
    interrupts.alive()
    signal.raise_signal(signal.SIGTERM)
    interrupts.check()
    assert os.read(interrupts.fileno(), 1)
    with pytest.raises(Interrupted, match="ends early"):
        interrupts.step()


@pytest.mark.usefixtures("noted")
def test_nobody_sleeps_after_a_signal() -> None:
    began = time.monotonic()
    interrupts.sleep(0.01)
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(Interrupted):
        interrupts.sleep(10 * PATIENCE)
    assert 0.01 <= time.monotonic() - began < 10 * PATIENCE


def test_what_a_handler_raises_is_raised_after_the_callback() -> None:
    """Also where signals are not noted, as for a program that uses tcprism.Monitor."""
    compare = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
    calls = []

    def called(_one: int, _other: int) -> int:
        signal.raise_signal(signal.SIGINT)
        calls.append("on")
        return 0

    def sort() -> None:
        with interrupts.deferred():
            ctypes.CDLL(None).qsort(ctypes.create_string_buffer(b"ab"), 2, 1, compare(called))
            calls.append("end")

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            sort()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert calls == ["on", "end"]


def test_nothing_is_noted_where_nobody_asked_for_it() -> None:
    """As in a program of somebody else that imports tcprism."""
    before = [signal.getsignal(number) for number in NUMBERS]
    with interrupts.noted():
        assert [signal.getsignal(number) for number in NUMBERS] != before
    assert [signal.getsignal(number) for number in NUMBERS] == before
    interrupts.check()
    interrupts.step()
    assert interrupts.asked() == 0


def stuck(begin: str = "", prefix: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """Start a program whose main thread is in C for long."""
    process = subprocess.Popen(
        [*prefix, sys.executable, "-c", STUCK.format(begin=begin)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", NUMBERS)
def test_a_start_that_takes_long_is_given_up(number: signal.Signals) -> None:
    process = stuck()
    process.send_signal(number)
    said = process.communicate(timeout=PATIENCE)
    assert said == ("cleaned\n", "tcprism: interrupted while starting\n")
    assert process.returncode == 128 + number


def test_work_that_hangs_is_given_up() -> None:
    process = stuck("interrupts.alive(0.2)")
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=PATIENCE)
    assert said == ("cleaned\n", "tcprism: interrupted before it could end in good order\n")
    assert process.returncode == 128 + signal.SIGTERM


def test_a_second_wish_does_not_wait() -> None:
    process = stuck("interrupts.alive(3600)")
    while process.poll() is None:
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
    assert process.communicate(timeout=PATIENCE)[0] == "cleaned\n"
    assert process.returncode == 128 + signal.SIGINT


def test_one_wish_may_come_twice() -> None:
    """A shell that is hung up passes the signal on, so does sudo.

    However long it takes from the first to the last, here it is within the time of one wish.
    """
    process = stuck("interrupts._ONE_WISH = 3600; interrupts.alive(1.0)")
    began = time.monotonic()
    for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM):
        process.send_signal(number)
    process.communicate(timeout=PATIENCE)
    assert time.monotonic() - began >= 1.0
    assert process.returncode in (128 + signal.SIGHUP, 128 + signal.SIGTERM)


def test_nohup_is_obeyed() -> None:
    process = stuck(prefix=("nohup",))
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1.0)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + signal.SIGTERM


# The signal comes in the few microseconds between the first line and the one that holds it back.
NOT_HELD_YET = """
import _signal, runpy, sys
_signal.signal(_signal.SIGINT, _signal.default_int_handler)  # nobody has Python ignore it
hold = _signal.pthread_sigmask
_signal.pthread_sigmask = lambda *which: (_signal.raise_signal(_signal.SIGINT), hold(*which))
runpy.run_path(sys.argv[1])
"""


def test_ctrl_c_before_it_is_held_back() -> None:
    command = [sys.executable, "-c", NOT_HELD_YET, SCRIPT, "tcprism", "--help"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (128 + signal.SIGINT, "")
    assert done.stderr == "tcprism: interrupted while starting\n"


@pytest.mark.parametrize(
    "arguments",
    [("--help",), ("doctor",), ("replay", SAMPLE), ("query", SAMPLE, "SELECT 1"), ("trace", "-h")],
    ids=lambda arguments: arguments[0],
)
def test_ctrl_c_in_the_first_moments(arguments: tuple[str, ...]) -> None:
    """Python itself may be starting still, and answers in its own way; none of our lines does."""
    for _ in range(12):
        process = subprocess.Popen(
            [sys.executable, SCRIPT, "tcprism", *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        with suppress(subprocess.TimeoutExpired):
            process.wait(random.uniform(0, 0.3))
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=PATIENCE)
        assert f'File "{SCRIPT}"' not in said.replace(BEFORE_OUR_LINES, "")
        assert f'File "{PACKAGE}' not in said
        if process.returncode == 128 + signal.SIGINT:
            assert said.splitlines()[-1].startswith("tcprism: interrupted")
        elif process.returncode != -signal.SIGINT and "Interrupt" not in said:
            assert process.returncode == 0, said  # where the signal came late
            assert said == "" or said.endswith("none lost\n")
