"""The parts of the virtual-machine runner that need no machine."""

import gzip
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import cpio
import in_memory
import initramfs
import kernel_vm
import matrix
from debian_kernels import Kernel, KernelError, elf_kernel, newest_release

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
        cpio.entry("bin", mode=0o40755),
        cpio.entry("bin/odd", b"five!"),
        cpio.entry(cpio.END),
    )
    unpack = ["busybox", "cpio", "-i"]
    subprocess.run(unpack, input=b"".join(entries), cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "bin/odd").read_bytes() == b"five!"
    assert (tmp_path / "bin/odd").stat().st_mode == 0o100755


def test_files_in_memory_are_where_the_host_has_them(tmp_path: Path) -> None:
    """With the links on the way, and as old: Python trusts compiled files of the same age."""
    if shutil.which("busybox") is None:
        pytest.skip("needs busybox")
    host, guest = tmp_path / "host", tmp_path / "guest"
    (host / "real").mkdir(parents=True)
    guest.mkdir()
    file = host / "real/file"
    file.write_bytes(b"old")
    os.utime(file, (1e9, 1e9))
    (host / "far").symlink_to(host / "real")
    (host / "real/near").symlink_to("../far/file")
    entries = [cpio.entry("m", mode=0o40755), *in_memory.entries("m", [host / "far/near"])]
    archive = b"".join([*entries, cpio.entry(cpio.END)])
    unpack = ["busybox", "cpio", "-i", "-m"]
    subprocess.run(unpack, input=archive, cwd=guest, check=True, capture_output=True)
    there = Path(f"{guest}/m{host}")
    assert {path.relative_to(there).as_posix() for path in there.rglob("*")} == {
        *("real", "real/file", "real/near", "far"),
    }
    assert (os.readlink(there / "far"), os.readlink(there / "real/near")) == (
        str(host / "real"),
        "../far/file",
    )
    assert (there / "real/file").read_bytes() == b"old"
    assert (there / "real/file").stat().st_mtime == 1e9


def test_files_in_memory_are_what_tests_load(tmp_path: Path) -> None:
    """Python itself, what the tests import, and the libraries of that."""
    (tmp_path / "test_x.py").write_text("import colorsys\n")
    found = in_memory.loaded_by_tests(tmp_path, ["ctypes"])
    assert Path(sys.executable) in found
    for part in ("/_pytest/main.py", "/colorsys.py", "/ctypes/__init__.py", "/libffi.so"):
        assert any(part in str(path) for path in found), part


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


SILENCE = 0.2  # seconds, of a clock that goes on when the test says so


def run_machine(script: str, console: Path, clock: Callable[[], float]) -> bool:
    """Run a shell script in the place of QEMU; more than SILENCE without a word is too long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel_vm, "time", SimpleNamespace(monotonic=clock))
        return kernel_vm.boot(["sh", "-c", script, "_", str(console)], console, SILENCE)


@pytest.mark.parametrize("output", ["echo $i", "echo $i >&2", "echo $i >>$1"])
def test_a_machine_that_prints_now_and_then_may_take_as_long_as_it_needs(
    output: str, tmp_path: Path
) -> None:
    """Three quarters of the time that it may be silent pass before each word."""
    passed = tmp_path / "passed"
    passed.touch()
    script = f"for i in 1 2 3 4 5 6; do printf . >>{passed}; sleep {2 * SILENCE}; {output}; done"
    assert run_machine(script, tmp_path / "console", lambda: passed.stat().st_size * SILENCE * 0.75)
    assert passed.stat().st_size == 6


def test_a_machine_that_falls_silent_is_ended_and_what_it_printed_is_shown(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "printf '.. [ 41%%'; printf 'no address\\n' >&2; echo booted >$1; exec sleep 3600"
    console, pass_on = tmp_path / "console", kernel_vm.pass_on
    passed_on: list[Any] = []
    looks = count()

    def noted(*what: Any) -> None:
        passed_on.append(what)
        pass_on(*what)

    def clock() -> float:
        """Go on once all is printed and passed on."""
        printed = len(passed_on) >= 2 and console.exists() and console.stat().st_size
        return next(looks) * SILENCE if printed else 0.0

    monkeypatch.setattr(kernel_vm, "pass_on", noted)
    assert not run_machine(script, console, clock)
    assert capfdbinary.readouterr() == (b".. [ 41%", b"no address\n")


def test_a_stuck_machine_has_an_exit_status_of_its_own_and_its_console_is_shown(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fake_machine(_kernel: Kernel, scratch: Path, _writable: object) -> list[str]:
        (scratch / "console").write_text("rcu: INFO: self-detected stall\n")
        return ["sleep", "60"]

    monkeypatch.setattr(kernel_vm, "initramfs", lambda *_: b"")
    monkeypatch.setattr(kernel_vm, "qemu_command", fake_machine)
    assert kernel_vm.run(Kernel("6.1"), ["true"], silence=0.2) == kernel_vm.STUCK
    shown = "rcu: INFO: self-detected stall\n\nkernel_vm: killed after 0.2 s of silence\n"
    assert capfd.readouterr().err == shown


@pytest.mark.parametrize(
    ("output", "percent"),
    [
        (b"", 0),
        (b"tests/kernel/test_rings.py .", 0),
        (b"tests/kernel/test_rings.py ...    [  7%]\ntests/kernel/test_top.py ..", 7),
        (b"tests/kernel/test_rings.py ...    [ 99%]\ntests/kernel/test_top.py . [100%]\n", 100),
        (b"E   assert '[ 50%] of it' == ''\n", 0),
    ],
)
def test_the_progress_of_a_machine_is_what_pytest_says(output: bytes, percent: int) -> None:
    assert matrix.percent_done(output) == percent


# A matrix of one machine, which is a shell in the place of QEMU.
FAKE_MATRIX = """
import asyncio, sys, types, matrix
matrix.test_command = lambda *_: ["sh", "-c", sys.argv[1]]
kernel = types.SimpleNamespace(name="6.1", release="6.1.0-fake")
sys.exit(asyncio.run(matrix.run_until_stopped([kernel], 1, None)))
"""


def start_fake_matrix(script: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", FAKE_MATRIX, script]
    return subprocess.Popen(
        command,
        cwd=MATRIX.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_machines_and_shows_what_they_printed(number: signal.Signals) -> None:
    machine = "trap 'echo ended; exit' TERM; echo 'x [ 20%]'; while :; do sleep 0.1; done"
    with start_fake_matrix(machine) as process:
        assert process.stdout
        assert process.stdout.readline().startswith("6.1: 20 % after ")
        process.send_signal(number)
        rest = process.stdout.read()
    assert rest.endswith(": stopped -----\nx [ 20%]\nended\n\n")
    assert process.returncode == 128 + number


def test_progress_is_told_at_each_tenth_while_the_tests_run() -> None:
    machine = """say() { echo "t.py .. [ $1%]"; }
        say 9; say 12; read told; say 18; say 25; echo 4 passed"""
    with start_fake_matrix(machine) as process:
        assert process.stdin
        assert process.stdout
        lines = [process.stdout.readline()]
        process.stdin.write("told\n")
        process.stdin.flush()
        lines += process.stdout.read().splitlines()
    assert [line.split()[:3] for line in lines[:2]] == [["6.1:", "12", "%"], ["6.1:", "25", "%"]]
    assert lines[2].startswith("----- kernel ")
    assert lines[-1].endswith("4 passed")
    assert process.returncode == 0


@pytest.mark.parametrize(("deaths", "status"), [(0, 7), (2, 7), (3, kernel_vm.MACHINE_FAILED)])
@pytest.mark.parametrize("last_words", ["Kernel panic", initramfs.WRONG_CLOCK])
def test_a_kernel_that_dies_as_it_boots_is_booted_again(
    deaths: int, status: int, last_words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fake_machine(_kernel: Kernel, scratch: Path, _writable: object) -> list[str]:
        (scratch / "status").touch()
        script = (
            "echo >>$1; if [ $(wc -l <$1) -le $2 ]; then echo $4 >$3/console; "
            "else echo started >$3/status; echo 7 >>$3/status; fi"
        )
        words = (str(tmp_path / "boots"), str(deaths), str(scratch), last_words)
        return ["sh", "-c", script, "_", *words]

    monkeypatch.setattr(kernel_vm, "initramfs", lambda *_: b"")
    monkeypatch.setattr(kernel_vm, "qemu_command", fake_machine)
    assert kernel_vm.run(Kernel("6.1"), ["true"]) == status
