"""Nothing that the environment offers is imported or loaded by root's tcprism."""

from __future__ import annotations

import importlib.util
import marshal
import os
import shutil
import struct
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.tracer import PATIENCE, TCPRISM

pytestmark = pytest.mark.native

NOBODY = 65534
MODULES = ("encodings/__init__", "sitecustomize", "usercustomize", "numpy", "click", "random")
TRACE = ("trace", "--duration", "0.1", "--port", "1")
LIBRARY = """
static long call(long number, long a, long b, long c) {
    long result;
    __asm__ volatile("syscall" : "=a"(result)
        : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
}
__attribute__((constructor)) static void leave_a_mark(void) {
    static const char name[] = NAME "\\n";
    long file = call(2, (long)MARK, 02001, 0); /* open(MARK, O_WRONLY | O_APPEND) */
    call(1, file, (long)name, sizeof(name) - 1);
}
"""


class Traps:
    """A folder of nobody's, and variables that point there; what is loaded leaves its name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._mark = folder / "mark"
        self._python = (  # `encodings` is imported before there is an `open`
            "import posix\n"
            f"mark = posix.open({str(self._mark)!r}, posix.O_WRONLY | posix.O_APPEND)\n"
            "posix.write(mark, (__file__ + '\\n').encode())\nposix.close(mark)\n"
        )
        for module in MODULES:
            self._module(folder / "modules" / f"{module}.py")
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        for name in ("usercustomize", "sitecustomize"):
            self._module(folder / ".local/lib" / version / f"site-packages/{name}.py")
        self._module(folder / "startup.py")
        self._byte_code(folder / "cache", Path(sysconfig.get_path("stdlib"), "encodings"))
        for name in ("preload.so", "libbpf.so.1"):
            self._library(folder / name)
        self.forget()
        os.chmod(folder, 0o755)
        for root, folders, files in os.walk(folder):
            for each in (root, *(os.path.join(root, name) for name in (*folders, *files))):
                os.chown(each, NOBODY, NOBODY)

    def _module(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self._python)

    def _byte_code(self, cache: Path, package: Path) -> None:
        """Plant byte code that Python takes for that of a module of its own."""
        source = package / "__init__.py"
        place = cache / package.relative_to("/") / f"__init__.{sys.implementation.cache_tag}.pyc"
        place.parent.mkdir(parents=True)
        found = source.stat()
        head = struct.pack("<III", 0, int(found.st_mtime), found.st_size & 0xFFFFFFFF)
        code = compile(f"__file__ = {str(place)!r}\n{self._python}", str(place), "exec")
        place.write_bytes(importlib.util.MAGIC_NUMBER + head + marshal.dumps(code))

    def _library(self, path: Path) -> None:
        source = path.with_name("library.c")
        source.write_text(LIBRARY)
        subprocess.run(
            [
                *(sys.executable, "-m", "ziglang", "cc", "-target", "x86_64-linux-gnu"),
                *("-shared", "-fPIC", "-nostdlib", f'-DNAME="{path.name}"'),
                *(f'-DMARK="{self._mark}"', "-o", str(path), str(source)),
            ],
            check=True,
        )

    def python(self) -> dict[str, str]:
        """Return variables that Python obeys."""
        return {
            "HOME": str(self.folder),
            "PYTHONPATH": str(self.folder / "modules"),
            "PYTHONPYCACHEPREFIX": str(self.folder / "cache"),
            "PYTHONSTARTUP": str(self.folder / "startup.py"),
            "PYTHONUSERBASE": str(self.folder / ".local"),
        }

    def linker(self) -> dict[str, str]:
        """Return variables that the dynamic linker obeys."""
        return {
            "LD_LIBRARY_PATH": str(self.folder),
            "LD_PRELOAD": str(self.folder / "preload.so"),
        }

    def run(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command inside the folder, with variables."""
        return subprocess.run(
            command, cwd=self.folder, env={**os.environ, **variables}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=PATIENCE,
        )  # fmt: skip

    def forget(self) -> None:
        """Forget what was loaded."""
        self._mark.write_text("")
        self._mark.chmod(0o666)

    def loaded(self) -> set[str]:
        """Return the files that were loaded, as seen from the folder."""
        lines = set(self._mark.read_text().splitlines())
        return {line.removeprefix(f"{self.folder}/") for line in lines}


@pytest.fixture(scope="module")
def made() -> Iterator[Traps]:
    with tempfile.TemporaryDirectory() as name:
        yield Traps(Path(name))


@pytest.fixture
def traps(made: Traps) -> Traps:
    made.forget()
    return made


def test_the_traps_work(traps: Traps) -> None:
    """The tests below can fail."""
    python = os.path.realpath(sys.executable)  # not that of the virtual environment
    variables = traps.python()
    for name in ("PYTHONPATH", "PYTHONPYCACHEPREFIX", "HOME"):
        traps.run(python, "-c", "", **{name: variables[name]})
    traps.run(python, "-i", PYTHONSTARTUP=variables["PYTHONSTARTUP"])
    traps.run(sys.executable, "-c", "", LD_PRELOAD=traps.linker()["LD_PRELOAD"])
    loaded = traps.loaded()
    assert {"modules/encodings/__init__.py", "preload.so"} < loaded
    assert any(each.startswith("cache/") for each in loaded), loaded
    assert any(each.startswith(".local/") for each in loaded), loaded


@pytest.mark.parametrize(
    "arguments",
    [TRACE, ("demo", "--duration", "0.5"), ("retransmits", "--duration", "0.1"), ("doctor",)],
    ids=lambda arguments: arguments[0],
)
def test_the_command_obeys_no_variable_of_pythons(arguments: tuple[str, ...], traps: Traps) -> None:
    done = traps.run(TCPRISM, *arguments, **traps.python(), PYTHONHOME=str(traps.folder))
    assert traps.loaded() == set()
    assert "Traceback" not in done.stderr
    assert done.returncode == 0 or arguments == ("doctor",), done.stderr


def test_so_does_the_module_where_python_is_told_so(traps: Traps) -> None:
    variables = traps.python() | {"PYTHONHOME": str(traps.folder)}
    done = traps.run(sys.executable, "-I", "-m", "tcprism", *TRACE, **variables)
    assert (done.returncode, traps.loaded()) == (0, set()), done.stderr


def test_root_loads_no_library_of_others(traps: Traps) -> None:
    library = traps.folder / "libbpf.so.1"
    done = traps.run(TCPRISM, *TRACE, TCPRISM_LIBBPF=str(library))
    assert (done.returncode, traps.loaded()) == (1, set())
    assert f"{library} is not loaded as root, for others may change {library}" in done.stderr
    os.chown(library, 0, 0)
    try:
        done = traps.run(TCPRISM, *TRACE, TCPRISM_LIBBPF=str(library))
    finally:
        os.chown(library, NOBODY, NOBODY)
    assert (done.returncode, traps.loaded()) == (1, set())
    assert f"others may change {traps.folder}:" in done.stderr


@pytest.mark.parametrize("flags", [(), ("-E",)], ids=["sudo", "sudo -E"])
def test_sudo_from_a_user_whose_environment_is_hostile(
    flags: tuple[str, ...], traps: Traps, tmp_path: Path
) -> None:
    """Sudo itself drops what the linker obeys; of the rest, `-E` passes on some."""
    if not shutil.which("sudo"):
        pytest.skip("needs the package sudo")
    rules = tmp_path / "sudoers"
    rules.write_text("Defaults env_reset\nnobody ALL=(root) NOPASSWD:SETENV: ALL\n")
    rules.chmod(0o440)
    script = (
        'mount --bind "$0" /etc/sudoers && hostile=$1 && shift &&'
        f" exec setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups"
        ' sh -c \'hostile=$1; shift; exec env $hostile "$@"\' sh "$hostile" "$@"'
    )
    variables = {**traps.python(), **traps.linker(), "PYTHONHOME": str(traps.folder)}
    hostile = " ".join(f"{name}={value}" for name, value in variables.items())
    command = ("sudo", *flags, TCPRISM, *TRACE)
    done = traps.run("unshare", "--mount", "sh", "-c", script, str(rules), hostile, *command)
    assert "no events" in done.stderr, done.stderr
    assert (done.returncode, traps.loaded()) == (0, set())
