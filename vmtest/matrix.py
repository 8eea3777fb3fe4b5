"""Run the kernel tests under other kernels, each in a virtual machine of its own.

  matrix.py                       all of KERNELS, as many machines at once as there are CPUs
  matrix.py 6.1 -- -k retransmit  one kernel, with more arguments for pytest

While they run, each tells when another tenth of its tests is done. A machine that prints nothing
for long is ended (kernel_vm.py); so are all by Ctrl-C or SIGTERM.

A kernel that is not in the cache is fetched. Where no virtual machine can run, the whole matrix is
skipped with the reason, unless TCPRISM_REQUIRE lists `vm` or kernels are named: then that fails.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import in_memory
from debian_kernels import Kernel, KernelError, fetch
from kernel_vm import SILENCE, missing_requirement

ROOT = Path(__file__).resolve().parent.parent
KERNELS = ("6.12", "7", "6.1", "5.10")  # those with the most hooks, which take longest, first
DUMP_AFTER = 0.8 * SILENCE  # seconds: pytest shows where a test hangs before the machine is ended
PYTEST = (
    *("-m", "pytest", "tests/kernel", "-p", "no:cacheprovider", "-m", "not native"),
    *("-o", f"faulthandler_timeout={DUMP_AFTER:g}"),
)
# Commands of tcprism that tests start, and what these import while they run.
MODULES = (
    *(f"tcprism.cli.{name}" for name in ("connections", "demo", "doctor", "retransmits", "trace")),
    *("tcprism.sources.tracing", "tcprism.sinks.json_lines", "runpy"),
)
# There pytest starts in 9 s without plugins, rather than 24.
GUEST_ENVIRONMENT = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


@dataclass(frozen=True)
class Outcome:
    """What came of the tests under one kernel. `seconds` include the boot."""

    kernel: Kernel
    status: int
    output: str
    seconds: float

    @property
    def summary(self) -> str:
        lines = self.output.rstrip().splitlines() or ["no output"]
        return f"{self.kernel.name} ({self.kernel.release}): {lines[-1].strip('= ')}"


@dataclass(frozen=True)
class Run:
    """What to run in each machine: pytest's arguments, and a list of files to have in memory."""

    pytest_arguments: Sequence[str]
    in_memory: Path


def test_command(kernel: Kernel, run: Run) -> list[str]:
    """Return the command that runs the kernel tests under `kernel`."""
    machine = (sys.executable, str(ROOT / "vmtest/kernel_vm.py"), "run")
    options = ("--in-memory", str(run.in_memory), kernel.name)
    return [*machine, *options, "--", sys.executable, *PYTEST, *run.pytest_arguments]


async def run_tests(kernel: Kernel, run: Run) -> Outcome:
    """Run the kernel tests under `kernel` and wait for their end."""
    start = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *test_command(kernel, run),
        cwd=ROOT,
        env=os.environ | GUEST_ENVIRONMENT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout
    output = bytearray()
    try:
        await read_output(kernel, process.stdout, output)
    except asyncio.CancelledError:
        process.terminate()
        await read_output(kernel, process.stdout, output)
        print(f"----- kernel {kernel.release}: stopped -----\n{output.decode(errors='replace')}")
        raise
    text = output.decode(errors="replace")
    return Outcome(kernel, await process.wait(), text, time.monotonic() - start)


async def read_output(kernel: Kernel, stream: asyncio.StreamReader, output: bytearray) -> None:
    """Add to `output` what a machine prints, and tell whenever another tenth is done."""
    start, told = time.monotonic(), 0
    while chunk := await stream.read(1 << 16):
        output += chunk
        done = percent_done(output)
        if done // 10 > told // 10:
            told = done
            print(f"{kernel.name}: {done} % after {time.monotonic() - start:.0f} s", flush=True)


def percent_done(output: bytes | bytearray) -> int:
    """Return how much of its tests pytest says to have run."""
    marks = re.findall(rb"\[ *(\d+)%\]$", output[-4096:], re.MULTILINE)
    return int(marks[-1]) if marks else 0


async def run_matrix(kernels: Iterable[Kernel], jobs: int, run: Run) -> list[Outcome]:
    """Test all kernels, `jobs` at once, and print each outcome as it comes."""
    slots = asyncio.Semaphore(jobs)

    async def run_one(kernel: Kernel) -> Outcome:
        async with slots:
            outcome = await run_tests(kernel, run)
        print_outcome(outcome)
        return outcome

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(run_one(kernel)) for kernel in kernels]
    return [task.result() for task in tasks]


def print_outcome(outcome: Outcome) -> None:
    result = "passed" if outcome.status == 0 else f"FAILED with exit status {outcome.status}"
    heading = f"kernel {outcome.kernel.release}: {result} in {outcome.seconds:.0f} s"
    print(f"----- {heading} -----\n{outcome.output}", flush=True)


def prepare(kernels: Iterable[Kernel]) -> None:
    """Make sure that every kernel can boot here. Raises KernelError."""
    if missing := missing_requirement():
        raise KernelError(missing)
    if absent := [kernel.name for kernel in kernels if not kernel.present]:
        fetch(absent)


def files_in_memory() -> list[Path]:
    """Return the files that the tests open again and again."""
    tests = ROOT / "tests"
    return [
        *in_memory.loaded_by_tests(tests / "kernel", MODULES),
        *in_memory.loaded_by_tools(),
        *in_memory.below(ROOT / "src", tests, ROOT / "build/programs"),
    ]


def required(arguments: argparse.Namespace) -> bool:
    """Whether it is a failure when the matrix cannot run."""
    return bool(arguments.kernels) or "vm" in os.environ.get("TCPRISM_REQUIRE", "").split(",")


def split_arguments(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return our own arguments and, behind `--`, pytest's."""
    end = words.index("--") if "--" in words else len(words)
    return list(words[:end]), list(words[end + 1 :])


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="matrix.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cpus = len(os.sched_getaffinity(0))
    parser.add_argument("kernels", nargs="*", metavar="KERNEL", help=f"of {', '.join(KERNELS)}")
    parser.add_argument("--jobs", type=int, default=cpus, help=f"machines at once ({cpus})")
    return parser.parse_args(words)


async def run_until_stopped(kernels: Sequence[Kernel], jobs: int, run: Run) -> int:
    """Run the matrix and return the exit status; Ctrl-C and SIGTERM stop its machines too."""
    matrix = asyncio.create_task(run_matrix(kernels, jobs, run))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, matrix.cancel, number)
    try:
        outcomes = await matrix
    except asyncio.CancelledError as stopped:
        return 128 + int(stopped.args[0])
    for outcome in outcomes:
        print(outcome.summary)
    return 1 if any(outcome.status for outcome in outcomes) else 0


def main() -> int:
    ours, pytest_arguments = split_arguments(sys.argv[1:])
    arguments = parse(ours)
    kernels = [Kernel(name) for name in arguments.kernels or KERNELS]
    try:
        prepare(kernels)
    except KernelError as error:
        print(f"virtual machines: {error}", file=sys.stderr)
        return 1 if required(arguments) else 0
    with tempfile.NamedTemporaryFile("w", prefix="in-memory-") as file:
        print(*files_in_memory(), sep="\n", file=file, flush=True)
        run = Run(pytest_arguments, Path(file.name))
        return asyncio.run(run_until_stopped(kernels, arguments.jobs, run))


if __name__ == "__main__":
    sys.exit(main())
