"""Run a command as root under another Debian kernel, in a throw-away QEMU machine (no KVM needed).

  kernel_vm.py fetch NAME...                 the newest Debian build of each: fetch 5.10 6.1 6.12 7
  kernel_vm.py run [OPTIONS] NAME -- CMD...  run CMD under kernel NAME

The guest sees this machine's files copy-on-write: what CMD writes is lost, except below the
directories given with --rw. It has the current directory and environment, no stdin, and no network
but lo. The exit status is CMD's, or 124 when CMD and the kernel were silent for too long, or 125
when the machine failed (its console is shown in both cases). Needs root and the packages
qemu-system-x86 busybox-static kmod zstd.
Cache: $KERNEL_VM_CACHE or ~/.cache/kernel-vm (160 MB per kernel).
"""

from __future__ import annotations

import argparse
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from debian_kernels import Kernel, KernelError, fetch
from initramfs import BUSYBOX, WRONG_CLOCK, initramfs

SILENCE = 900.0  # seconds: how long a machine may print nothing before it counts as stuck
STUCK = 124
MACHINE_FAILED = 125
STARTED = "started\n"  # said by a machine that has booted, before it runs its command
# Emulated, a kernel sometimes dies as it patches its own code while it boots, or has a wrong clock.
BOOTS = 3
# Faster without KVM: no zeroing of 9p's buffers, no HPET reads. An oops ends the run at once.
KERNEL_COMMAND_LINE = (
    "console=ttyS0 quiet loglevel=4 panic=-1 oops=panic init_on_alloc=0 tsc=reliable"
    " mitigations=off no_timer_check"
)
# Without "fast" string instructions, which the emulator carries out byte by byte.
MACHINE = (
    *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
    *("-machine", "q35", "-cpu", "max,-erms,-fsrm", "-smp", "2", "-m", "2G"),
)


def missing_requirement() -> str | None:
    """Return what this machine lacks to run a guest, as a sentence, or None."""
    if os.geteuid() != 0:
        return "a virtual machine that sees the host's files needs root"
    tools = ("qemu-system-x86_64", "setpriv", "modprobe", "zstd")
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing or not BUSYBOX.exists():
        missing += [] if BUSYBOX.exists() else [str(BUSYBOX)]
        packages = "qemu-system-x86 busybox-static kmod zstd util-linux"
        return f"{', '.join(missing)} not found: install {packages}"
    return None


def run(
    kernel: Kernel,
    command: Sequence[str],
    silence: float = SILENCE,
    writable: Sequence[Path] = (),
    show_console: bool = False,
    files: Sequence[Path] = (),
) -> int:
    """Run `command` under `kernel` and return its exit status, STUCK or MACHINE_FAILED.

    A machine is stuck when it has printed nothing for `silence` seconds: how long it may take in
    all depends on what else the host does. `writable` are directories that the guest may change;
    it has `files` in its memory, where they open sooner.
    """
    writable = [path.resolve() for path in writable]
    with tempfile.TemporaryDirectory(prefix="kernel-vm-") as name:
        scratch = Path(name)
        (scratch / "initrd").write_bytes(initramfs(kernel, command, writable, files))
        qemu = qemu_command(kernel, scratch, writable)
        stuck = not boot(qemu, scratch / "console", silence)
        for _ in range(BOOTS - 1):
            if stuck or not failed_early(scratch):
                break
            stuck = not boot(qemu, scratch / "console", silence)
        status = "" if stuck else (scratch / "status").read_text().removeprefix(STARTED)
        if show_console or not status:
            print((scratch / "console").read_text(errors="replace"), file=sys.stderr)
        if stuck:
            print(f"kernel_vm: killed after {silence:g} s of silence", file=sys.stderr)
            return STUCK
        return int(status or MACHINE_FAILED)


def failed_early(scratch: Path) -> bool:
    """Whether the kernel died before it could start the command, or its clock is wrong."""
    if (scratch / "status").read_text():
        return False
    console = (scratch / "console").read_text(errors="replace")
    return "Kernel panic" in console or WRONG_CLOCK in console


def qemu_command(kernel: Kernel, scratch: Path, writable: Sequence[Path]) -> list[str]:
    """Return the command that boots `kernel`; it leaves `status` and `console` in `scratch`."""
    return [
        *("setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64", *MACHINE),
        *("-kernel", str(kernel.image), "-initrd", f"{scratch}/initrd"),
        *("-append", KERNEL_COMMAND_LINE, "-serial", f"file:{scratch}/console"),
        *("-device", "virtio-serial"),
        *port("out", "/proc/self/fd/1"),
        *port("err", "/proc/self/fd/2"),
        *port("rc", f"{scratch}/status"),
        *shared_directory("root", Path("/"), "on"),
        *(
            option
            for number, path in enumerate(writable)
            for option in shared_directory(f"rw{number}", path, "off")
        ),
    ]


def port(name: str, path: str) -> tuple[str, ...]:
    """A serial port of the guest whose output goes to `path`."""
    backend = f"file,id={name},path={path},append=on"
    return ("-chardev", backend, "-device", f"virtserialport,chardev={name},name={name}")


def shared_directory(tag: str, path: Path, readonly: str) -> tuple[str, ...]:
    """A directory of the host that the guest mounts as `tag`."""
    access = f"readonly={readonly},security_model=none,multidevs=remap"
    device = f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"
    return ("-fsdev", f"local,id={tag},path={path},{access}", "-device", device)


def boot(qemu: Sequence[str], console: Path, silence: float) -> bool:
    """Run the machine until it powers off. Returns False when it was silent, and was killed."""
    # QEMU reopens its stdout by path: pipes allow that, sockets do not, files do not survive it.
    with subprocess.Popen(
        qemu, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as machine:
        try:
            return relay(machine, console, silence)
        finally:
            machine.kill()


def relay(machine: subprocess.Popen[bytes], console: Path, silence: float) -> bool:
    """Pass on what the machine prints until it ends. Returns False when it falls silent."""
    assert machine.stdout
    assert machine.stderr
    with selectors.DefaultSelector() as selector:
        selector.register(machine.stdout, selectors.EVENT_READ, sys.stdout.buffer)
        selector.register(machine.stderr, selectors.EVENT_READ, sys.stderr.buffer)
        heard, length = time.monotonic(), 0
        while selector.get_map():
            looked = time.monotonic()  # what is printed from now on is not missed below
            ready = selector.select(min(silence, 1.0))
            for key, _ in ready:
                pass_on(selector, key)
            now = console.stat().st_size if console.exists() else 0
            if ready or now > length:
                heard, length = time.monotonic(), now
            elif looked - heard > silence:
                return False
    return True


def pass_on(selector: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
    """Write what has come through a pipe where it belongs, at once; at the end forget the pipe."""
    if chunk := os.read(key.fd, 1 << 16):
        key.data.write(chunk)
        key.data.flush()
    else:
        selector.unregister(key.fileobj)


def argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kernel_vm.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", required=True)
    fetching = actions.add_parser("fetch", help="fetch kernels")
    fetching.add_argument("names", nargs="+", metavar="NAME")
    running = actions.add_parser("run", help="run a command under a kernel")
    running.add_argument("name", metavar="NAME")
    running.add_argument("command", nargs="+", metavar="CMD")
    running.add_argument(
        "--silence", type=float, default=SILENCE, metavar="SECONDS",
        help=f"end the machine when it has printed nothing for so long ({SILENCE:g})",
    )  # fmt: skip
    running.add_argument("--rw", action="append", default=[], type=Path, metavar="DIR")
    running.add_argument(
        "--in-memory", type=Path, metavar="LIST",
        help="a file that names, one a line, the files that the guest has in its memory",
    )  # fmt: skip
    running.add_argument("--console", action="store_true", help="show the kernel's messages")
    return parser


def perform(arguments: argparse.Namespace) -> int:
    """Do what the command line asks. Raises KernelError when a kernel cannot be had."""
    if arguments.action == "fetch":
        fetch(arguments.names)
        return 0
    kernel = Kernel(arguments.name)
    if missing := missing_requirement():
        raise KernelError(missing)
    if not kernel.present:
        raise KernelError(f"{kernel.base} is missing: kernel_vm.py fetch {kernel.name}")
    files = arguments.in_memory.read_text().splitlines() if arguments.in_memory else []
    return run(
        kernel, arguments.command, arguments.silence, arguments.rw, arguments.console,
        [Path(name) for name in files],
    )  # fmt: skip


def stop(number: int, _: object) -> None:
    """Have the clean-up run when a signal comes, once."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    sys.exit(128 + number)


def main() -> int:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        return perform(argument_parser().parse_args())
    except KernelError as error:
        print(f"kernel_vm: {error}", file=sys.stderr)
        return MACHINE_FAILED


if __name__ == "__main__":
    sys.exit(main())
