"""The parts of the virtual-machine runner that need no machine."""

import gzip
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import initramfs
import matrix
from debian_kernels import KernelError, elf_kernel, newest_release

MATRIX = Path(matrix.__file__)


def test_the_newest_release_is_the_highest_number_not_the_last_name() -> None:
    packages = [
        "linux-image-6.1.0-9-amd64",
        "linux-image-6.1.0-50-amd64",
        "linux-image-6.1.0-51-rt-amd64",
        "linux-image-6.1.0-52-cloud-amd64",
        "linux-image-6.12.107-amd64",
        "linux-headers-6.1.0-60-amd64",
    ]
    assert newest_release("6.1", packages) == "6.1.0-50-amd64"


def test_newer_kernels_are_named_by_their_first_number() -> None:
    packages = ["linux-image-7.3.4+deb13-amd64", "linux-image-7.2.9+deb13-amd64"]
    assert newest_release("7", packages) == "7.3.4+deb13-amd64"


def test_a_kernel_that_debian_does_not_have() -> None:
    with pytest.raises(KernelError, match=r"no kernel 9\.9"):
        newest_release("9.9", ["linux-image-6.1.0-50-amd64"])


def test_an_image_that_holds_no_elf_kernel_is_booted_as_it_is() -> None:
    image = gzip.compress(bytes(0x2000)).ljust(0x1000, b"\0")
    assert elf_kernel(image) == image


def test_busybox_unpacks_the_archive(tmp_path: Path) -> None:
    if shutil.which("busybox") is None:
        pytest.skip("needs busybox")
    entries = (
        initramfs.cpio_entry("bin", mode=0o40755),
        initramfs.cpio_entry("bin/odd", b"five!"),
        initramfs.cpio_entry("TRAILER!!!"),
    )
    unpack = ["busybox", "cpio", "-i"]
    subprocess.run(unpack, input=b"".join(entries), cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "bin/odd").read_bytes() == b"five!"
    assert (tmp_path / "bin/odd").stat().st_mode == 0o100755


def test_the_guest_has_directory_environment_and_words_as_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ODD", "it's $HOME\n`here`")
    script = initramfs.command_script(["sh", "-c", 'printf "%s|" "$PWD" "$ODD" "$@"', "_", "a  'b"])
    done = subprocess.run(["/bin/sh"], input=script, text=True, env={}, stdout=subprocess.PIPE)
    assert done.stdout == f"{tmp_path}|it's $HOME\n`here`|a  'b|"


def run_matrix_without_qemu(*kernels: str, require: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PATH": "/nowhere", "TCPRISM_REQUIRE": require}
    command = [sys.executable, str(MATRIX), *kernels, "--", "-k", "nothing"]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("kernels", "require", "status"),
    [((), "", 0), ((), "kernel", 0), ((), "kernel,vm", 1), (("6.1",), "", 1)],
)
def test_no_virtual_machines_is_a_failure_only_where_they_must_run(
    kernels: tuple[str, ...], require: str, status: int
) -> None:
    done = run_matrix_without_qemu(*kernels, require=require)
    assert done.returncode == status
    assert done.stderr.startswith("virtual machines: ")
