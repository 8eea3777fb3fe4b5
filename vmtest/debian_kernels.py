"""Debian's kernels: fetched from this machine's mirror, kept in a cache outside the repository."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

CACHE = Path(os.environ.get("KERNEL_VM_CACHE") or Path.home() / ".cache/kernel-vm").resolve()
SUITES = ("bullseye", "bookworm", "trixie", "trixie-backports")  # 5.10, 6.1, 6.12, newer
DRIVERS = ("block", "char", "net", "virtio")  # the only ones that a test can use


class KernelError(Exception):
    """A kernel cannot be had; the message says why."""


@dataclass(frozen=True)
class Kernel:
    """One unpacked kernel: `base`/kernel and `base`/lib/modules/`release`."""

    name: str

    @property
    def base(self) -> Path:
        return CACHE / self.name

    @property
    def present(self) -> bool:
        return self.base.is_dir()

    @property
    def image(self) -> Path:
        return self.base / "kernel"

    @property
    def modules(self) -> Path:
        return next((self.base / "lib/modules").iterdir())

    @property
    def release(self) -> str:
        return self.modules.name


def fetch(names: Iterable[str]) -> None:
    """Fetch the newest Debian build of each kernel: `5.10`, `6.1`, `7`.

    Raises KernelError when Debian has no such kernel or the mirror cannot be reached.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    apt("apt-get", "-q", "update", output=False)
    packages = apt("apt-cache", "pkgnames", "linux-").split()
    for name in names:
        release = newest_release(name, packages)
        with tempfile.TemporaryDirectory(dir=CACHE) as directory:
            download(release, packages, Path(directory))
            new = assemble(release, Path(directory))
            shutil.rmtree(CACHE / name, ignore_errors=True)
            new.rename(CACHE / name)
        print(name, release, file=sys.stderr)


def apt(*command: str, output: bool = True, directory: Path | None = None) -> str:
    """Run an apt tool on package lists of our own, with this machine's mirror, keys and proxies."""
    lists = CACHE / "apt"
    lists.mkdir(exist_ok=True)
    (lists / "list").write_text("".join(f"deb {mirror()} {suite} main\n" for suite in SUITES))
    options = (
        f"Dir::State={lists}",
        "Dir::State::status=/dev/null",
        f"Dir::Cache={lists}",
        f"Dir::Etc::SourceList={lists}/list",
        "Dir::Etc::SourceParts=/dev/null",
        "Acquire::Languages=none",
        "APT::Architecture=amd64",
        "APT::Sandbox::User=root",
    )
    full = [command[0], *(f"-o{option}" for option in options), *command[1:]]
    out = subprocess.PIPE if output else sys.stderr
    try:
        return subprocess.run(full, cwd=directory, stdout=out, text=True, check=True).stdout or ""
    except subprocess.CalledProcessError as error:
        raise KernelError(f"`{' '.join(command)}` failed: see its messages above") from error


def mirror() -> str:
    """Return the address of the Debian archive that apt uses here."""
    try:
        command = ("apt-get", "indextargets", "--format", "$(REPO_URI)")
        uris = subprocess.check_output(command, text=True).split()
    except FileNotFoundError as error:
        raise KernelError("fetching kernels needs apt, which this machine does not have") from error
    for uri in uris:
        if "security" not in uri:
            return uri
    raise KernelError("apt knows no package archive: run `apt-get update` first")


def newest_release(name: str, packages: Iterable[str]) -> str:
    """Return the newest release among `packages` of kernel `name`, no realtime or cloud flavour."""
    version = rf"{re.escape(name)}[.-]\d[\d.+a-z]*(-\d+)?-amd64"
    image = re.compile(rf"linux-image-({version})")
    releases = [match[1] for package in packages if (match := image.fullmatch(package))]
    if not releases:
        raise KernelError(f"Debian has no kernel {name} in {', '.join(SUITES)}")
    return max(releases, key=lambda release: [int(n) for n in re.findall(r"\d+", release)])


def download(release: str, packages: Iterable[str], directory: Path) -> None:
    """Download and unpack the packages of one kernel into `directory`."""
    split = f"linux-binary-{release}" in packages  # newer kernels come in three packages
    kinds = ("base", "binary", "modules") if split else ("image",)
    names = [f"linux-{kind}-{release}" for kind in kinds]
    apt("apt-get", "-q", "download", *names, output=False, directory=directory)
    for package in directory.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, directory], check=True)


def assemble(release: str, directory: Path) -> Path:
    """Arrange the unpacked packages as a `Kernel` and return its base."""
    new = directory / "new"
    modules = new / "lib/modules" / release
    unpacked = next(d for d in directory.rglob(release) if d.parent.name == "modules")
    image = next(directory.rglob("vmlinuz*")).read_bytes()
    os.renames(unpacked, modules)
    (new / "kernel").write_bytes(elf_kernel(image))
    for drivers in (modules / "kernel/drivers").iterdir():
        if drivers.name not in DRIVERS:
            shutil.rmtree(drivers)
    subprocess.run(["depmod", "-b", new, release], check=True)
    return new


def elf_kernel(image: bytes) -> bytes:
    """Return the ELF kernel inside a bzImage, which QEMU boots seconds sooner, else the bzImage.

    The offsets are those of the Linux boot protocol's setup header.
    """
    start, size = (int.from_bytes(image[at : at + 4], "little") for at in (0x248, 0x24C))
    setup_sectors = image[0x1F1] + 1
    body = image[start + 512 * setup_sectors :][:size]
    tool = "xz" if body.startswith(b"\xfd7zXZ") else "zstd"
    # Four bytes of length follow the stream: either tool complains about them after its work.
    done = subprocess.run([tool, "-dc"], input=body, capture_output=True, check=False)
    return done.stdout if done.stdout.startswith(b"\x7fELF") else image
