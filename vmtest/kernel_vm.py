"""Run a command as root under another Debian kernel, in a throw-away QEMU machine (no KVM needed).

  kernel_vm.py fetch NAME...                 the newest Debian build of each: fetch 5.10 6.1 6.12 7
  kernel_vm.py run [OPTIONS] NAME -- CMD...  run CMD under kernel NAME

The guest sees this machine's files copy-on-write: what CMD writes is lost, except below the
directories given with --rw. It has the current directory and environment, no stdin, and no network
but lo. The exit status is CMD's, or 124 when it took too long, or 125 when the machine failed (then
its console is shown). Needs root and the packages qemu-system-x86 busybox-static kmod zstd.
Cache: $KERNEL_VM_CACHE or ~/.cache/kernel-vm (160 MB per kernel).
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from debian_kernels import Kernel, KernelError, fetch
from initramfs import BUSYBOX, initramfs

TIMED_OUT = 124
MACHINE_FAILED = 125
# Faster without KVM: no zeroing of 9p's buffers, no HPET reads. An oops ends the run at once.
KERNEL_COMMAND_LINE = (
    "console=ttyS0 quiet loglevel=4 panic=-1 oops=panic init_on_alloc=0 tsc=reliable"
    " mitigations=off no_timer_check"
)
MACHINE = (
    *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
    *("-machine", "q35", "-cpu", "max", "-smp", "2", "-m", "2G"),
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
    timeout: float = 600,
    writable: Sequence[Path] = (),
    show_console: bool = False,
) -> int:
    """Run `command` under `kernel` and return its exit status, TIMED_OUT or MACHINE_FAILED.

    `timeout` is in seconds; `writable` are directories that the guest may change.
    """
    writable = [path.resolve() for path in writable]
    with tempfile.TemporaryDirectory(prefix="kernel-vm-") as name:
        scratch = Path(name)
        (scratch / "initrd").write_bytes(initramfs(kernel, command, writable))
        qemu = qemu_command(kernel, scratch, writable)
        if not boot(qemu, timeout):
            print(f"kernel_vm: killed after {timeout:g} s", file=sys.stderr)
            return TIMED_OUT
        status = (scratch / "status").read_text()
        if show_console or not status:
            print((scratch / "console").read_text(errors="replace"), file=sys.stderr)
        return int(status or MACHINE_FAILED)


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


def boot(qemu: Sequence[str], timeout: float) -> bool:
    """Run the machine until it powers off. Returns False when it had to be killed."""
    # QEMU reopens its stdout by path, which sockets do not allow and files do not survive.
    with (
        subprocess.Popen("cat", stdin=subprocess.PIPE) as out,
        subprocess.Popen("cat", stdin=subprocess.PIPE, stdout=sys.stderr) as err,
        subprocess.Popen(
            qemu, stdin=subprocess.DEVNULL, stdout=out.stdin, stderr=err.stdin
        ) as machine,
    ):
        try:
            machine.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        finally:
            machine.kill()
    return True


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
    running.add_argument("--timeout", type=float, default=600, metavar="SECONDS")
    running.add_argument("--rw", action="append", default=[], type=Path, metavar="DIR")
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
    return run(kernel, arguments.command, arguments.timeout, arguments.rw, arguments.console)


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that clean-up runs
    try:
        return perform(argument_parser().parse_args())
    except KernelError as error:
        print(f"kernel_vm: {error}", file=sys.stderr)
        return MACHINE_FAILED


if __name__ == "__main__":
    sys.exit(main())
