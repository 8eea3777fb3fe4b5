"""`tcprism doctor --tls`, on real libraries; what is in them is known from how they were built."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tcprism.cli.doctor import command
from tcprism.cli.doctor_tls import lines
from tcprism.tls.uncovered import Uncovered
from tests.unit.tls.test_libraries import linked, mapping, running

STATIC = """
#include <openssl/ssl.h>
#include <stdio.h>
int main(void) {
    SSL_CTX *context = SSL_CTX_new(TLS_method());
    SSL *session = SSL_new(context);
    puts("");
    fflush(stdout);
    getchar();
    return SSL_write(session, "", 0) + SSL_read(session, 0, 0) + SSL_do_handshake(session);
}
"""


def report(pid: int) -> tuple[dict[str, Any], int]:
    """Return the only process in the report, with the exit status."""
    result = CliRunner().invoke(command, ["--tls", str(pid), "--json"])
    (process,) = json.loads(result.stdout)["processes"]
    assert process["pid"] == pid
    return process, result.exit_code


@pytest.fixture(scope="module")
def static_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or pytest.skip("a C compiler is missing")
    folder = tmp_path_factory.mktemp("static")
    (folder / "program.c").write_text(STATIC)
    libraries = ["-l:libssl.a", "-l:libcrypto.a", "-lz", "-lzstd", "-ldl", "-lpthread"]
    while libraries:  # which others the static library needs depends on how it was built
        built = subprocess.run(
            [compiler, "-o", "program", "program.c", *libraries], cwd=folder, capture_output=True
        )
        if built.returncode == 0:
            return folder / "program"
        if "-lzstd" not in libraries:
            break
        libraries.remove("-lzstd")
    pytest.skip("a static OpenSSL is missing")


def test_static_openssl(static_program: Path, tmp_path: Path) -> None:
    with running(str(static_program)) as pid:
        process, status = report(pid)
    (library,) = process["libraries"]
    assert (library["how"], library["flavor"], status) == ("static", "openssl", 0)
    assert {"SSL_read", "SSL_write", "SSL_do_handshake", "BIO_write"} <= {*library["functions"]}
    assert library["path"] == str(static_program)

    stripped = tmp_path / "stripped"
    subprocess.run(["strip", "-o", stripped, static_program], check=True)
    with running(str(stripped)) as pid:
        process, status = report(pid)
    assert process["libraries"] == []
    assert process["not_covered"] == [{"path": str(stripped), "reason": "no symbols"}]
    assert (process["name"], status) == ("stripped", 1)


@pytest.mark.parametrize(
    ("pids", "said"), [([1], "1 of the processes"), ([*range(1, 9)], "8 of the processes")]
)
def test_processes_that_cannot_be_examined_are_named(pids: list[int], said: str) -> None:
    told = [*lines({"processes": [], "unreadable": pids})]
    named = "1" if len(pids) == 1 else "1, 2, 3, 4, 5, ..."
    assert told[0] == f"{said} could not be examined: pid {named}"


def test_a_library_that_is_mapped_while_we_look(tmp_path: Path) -> None:
    """It was not there when the libraries were looked for, so it is not among the covered ones."""
    library = tmp_path / "x.so"
    shutil.copy(linked("libssl"), library)
    with mapping(library) as pid:
        assert str(library) not in Uncovered().of(pid, set())


@pytest.mark.parametrize("package", ["_polars_runtime_32", "obstore"])
def test_rustls(package: str) -> None:
    """Both read files from clouds, by way of rustls."""
    spec = importlib.util.find_spec(package)
    if not spec or not spec.submodule_search_locations:
        pytest.skip(f"{package} is missing")
    (folder,) = spec.submodule_search_locations
    (path,) = Path(folder).glob("*.so")
    with mapping(path) as pid:
        process, status = report(pid)
    (library,) = process["libraries"]
    assert (library["path"], library["flavor"], status) == (str(path), "rustls", 0)
    assert re.fullmatch(r"rustls 0\.23\.[0-9]+", library["version"])
    methods = Counter(name.rpartition("::")[2] for name in library["functions"])
    assert methods == {"decrypt(InboundOpaqueMessage)": 4, "encrypt(OutboundPlainMessage)": 4}


def test_two_versions_of_rustls(tmp_path: Path) -> None:
    """Of which one a function is, its name does not tell."""
    spec = importlib.util.find_spec("obstore")
    if not spec or not spec.submodule_search_locations:
        pytest.skip("obstore is missing")
    (library,) = Path(spec.submodule_search_locations[0]).glob("*.so")
    both = tmp_path / "both.so"
    both.write_bytes(library.read_bytes().replace(b"/rustls-0.23.", b"/rustls-0.21.", 1))
    with mapping(both) as pid:
        process, _ = report(pid)
    (missing,) = process["not_covered"]
    assert re.fullmatch(
        r"rustls 0\.21\.[0-9]+ and 0\.23\.[0-9]+, unsupported build", missing["reason"]
    )


def test_java() -> None:
    libraries = [*Path("/usr/lib/jvm").glob("*/lib/server/libjvm.so")]
    if not libraries:
        pytest.skip("java is missing")
    with mapping(libraries[0]) as pid:
        process, _ = report(pid)
    assert process["not_covered"] == [{"path": str(libraries[0].resolve()), "reason": "Java"}]


def test_nss() -> None:
    with mapping(linked("libssl3"), linked("libnspr4")) as pid:
        process, status = report(pid)
    assert [(each["flavor"], bool(each["functions"])) for each in process["libraries"]] == [
        ("nss", True)
    ] * 2
    assert status == 0


def test_another_architecture(tmp_path: Path) -> None:
    foreign = bytearray(Path(linked("libssl")).read_bytes())
    foreign[4], foreign[18] = 1, 3  # 32 bit, Intel 80386
    path = tmp_path / "libssl.so"
    path.write_bytes(foreign)
    with mapping(path) as pid:
        process, _ = report(pid)
    assert process["not_covered"] == [{"path": str(path), "reason": "unsupported build"}]


def test_text_and_targets() -> None:
    library = linked("libgnutls")
    with mapping(library) as pid:
        shown = CliRunner().invoke(command, ["--tls", str(pid)])
        everybody = CliRunner().invoke(command, ["--tls"])
    assert shown.exit_code == 0
    assert f"{os.path.basename(sys.executable)[:6]}" in shown.stdout
    assert f"    {os.path.realpath(library)}: GnuTLS " in shown.stdout
    assert shown.stdout in everybody.stdout


@pytest.mark.parametrize(
    ("target", "message"),
    [("x\n", r"--tls takes a pid, not x\x0a"), ("4194305", "there is no process 4194305")],
)
def test_wrong_targets(target: str, message: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "tcprism", "doctor", "--tls", target], capture_output=True, text=True
    )
    assert (result.returncode, result.stdout) == (2, "")
    assert message in result.stderr
