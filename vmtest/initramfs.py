"""The first file system of the guest: busybox, a few modules, and an init that runs one command."""

from __future__ import annotations

import lzma
import os
import re
import shlex
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import in_memory
from cpio import END, entry
from debian_kernels import Kernel

BUSYBOX = Path("/bin/busybox")
MODULES = ("virtio_pci", "virtio_console", "9p", "9pnet_virtio", "overlay")  # all that init needs
# A larger msize (512 KiB) is half as fast in 5.10.
P9_OPTIONS = "trans=virtio,version=9p2000.L,access=any,msize=65536"

# On a busy host a kernel may measure the frequency of its clock wrong, even by a factor of 20.
CLOCK_ERROR = 3  # seconds that it may have gone wrong by
WRONG_CLOCK = "the clock of this kernel is wrong"

# Run twice: as /init of the initramfs it builds the root (below a tmpfs the files that are in
# memory, below these the host's) and goes there, without switch_root, which would remove the
# former; there it mounts what a booted system has, runs the command and reports.
INIT = """#!/bin/busybox sh
B=/bin/busybox
if [ ! -e /run/init ]; then
    for m in {modules}; do $B insmod /mod/$m; done
    $B mount -t 9p -o ro,cache=loose,{p9} root /host
    $B mount -t tmpfs -o size=75% up /up; $B mkdir /up/u /up/w
    $B mount -t overlay -o lowerdir=/memory:/host,upperdir=/up/u,workdir=/up/w root /new
    $B mount -t tmpfs run /new/run; $B cp /init /cmd /new/run/
    cd /new; $B mount --move . /; exec $B chroot . $B sh /run/init
fi
$B mount -t proc proc /proc; $B mount -t sysfs sys /sys; $B mount -t devtmpfs dev /dev
$B mkdir -p /dev/pts /dev/shm /lib/modules/{release}
$B mount -t devpts -o mode=620,ptmxmode=666 pts /dev/pts; $B mount -t tmpfs shm /dev/shm
for d in fd stdin:fd/0 stdout:fd/1 stderr:fd/2; do
    $B ln -s /proc/self/${{d#*:}} /dev/${{d%:*}}
done
$B mount -t bpf bpf /sys/fs/bpf; $B mount -t cgroup2 cg /sys/fs/cgroup
$B mount -t debugfs debug /sys/kernel/debug; $B mount -t tracefs trace /sys/kernel/tracing
$B mount --bind {modules_directory} /lib/modules/{release}
$B ip link set lo up; $B hostname kernel-vm
{writable}for p in /sys/class/virtio-ports/*; do read -r n <$p/name; eval $n=/dev/${{p##*/}}; done
fast=$(( $($B date +%s) - $($B cat /sys/class/rtc/rtc0/since_epoch) ))
if [ ${{fast#-}} -gt {clock_error} ]; then
    echo "{wrong_clock}" >/dev/console; $B sync; $B reboot -f
fi
echo started >$rc; $B setsid /bin/sh /run/cmd </dev/null >$out 2>$err
echo $? >$rc; $B sync; $B reboot -f
"""


def initramfs(
    kernel: Kernel, command: Sequence[str], writable: Sequence[Path], files: Iterable[Path]
) -> bytes:
    """Return a cpio archive that boots `kernel` and runs `command` in the current directory.

    The guest has `files` in memory.
    """
    modules = dict(module_files(kernel))
    init = init_script(kernel, modules, writable)
    directories = ("bin", "dev", "host", "memory", "mod", "new", "run", "up")
    entries = [
        *(entry(name, mode=0o40755) for name in directories),
        entry("dev/console", mode=0o20600, device=(5, 1)),
        *(entry(f"mod/{name}", data) for name, data in modules.items()),
        entry("bin/busybox", BUSYBOX.read_bytes()),
        entry("init", init.encode()),
        entry("cmd", command_script(command).encode()),
        *in_memory.entries("memory", files),
        entry(END),
    ]
    return b"".join(entries)


def module_files(kernel: Kernel) -> Iterator[tuple[str, bytes]]:
    """Yield name and uncompressed contents of each module, in the order to load them."""
    lookup = ("modprobe", "-d", kernel.base, "-S", kernel.release, "-C", "/dev/null")
    for module in MODULES:
        steps = subprocess.check_output([*lookup, "--show-depends", module], text=True)
        for path in re.findall(r"^insmod (\S+)", steps, re.MULTILINE):
            read = lzma.open if path.endswith("xz") else open
            with read(path, "rb") as file:
                yield Path(path).name.split(".")[0], file.read()


def init_script(kernel: Kernel, modules: dict[str, bytes], writable: Sequence[Path]) -> str:
    mounts = (
        f"$B mount -t 9p -o cache=mmap,{P9_OPTIONS} rw{number} {shlex.quote(str(path))}\n"
        for number, path in enumerate(writable)
    )
    return INIT.format(
        modules=" ".join(modules),
        clock_error=CLOCK_ERROR,
        wrong_clock=WRONG_CLOCK,
        p9=P9_OPTIONS,
        release=kernel.release,
        modules_directory=shlex.quote(str(kernel.modules)),
        writable="".join(mounts),
    )


def command_script(command: Sequence[str]) -> str:
    """Return a script that runs `command` with this process's environment and directory."""
    variables = (
        f"export {name}={shlex.quote(value)}\n"
        for name, value in os.environ.items()
        if name.isidentifier()
    )
    return f"{''.join(variables)}cd {shlex.quote(os.getcwd())} && exec {shlex.join(command)}\n"
