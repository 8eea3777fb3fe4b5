"""Each bad request and each bad machine gets one sentence and the right exit status."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.tracer import PATIENCE, TCPRISM

pytestmark = pytest.mark.native

# Should a request be taken for a good one, it still sees no traffic that is not ours.
NOBODY = ("--comm", "tcprism-nobody")


def trace(*arguments: str, prefix: tuple[str, ...] = (), **environment: str) -> tuple[int, str]:
    """Run `tcprism trace` that must fail; return its status and its stderr."""
    result = subprocess.run(
        [*prefix, TCPRISM, "trace", *NOBODY, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, **environment},
    )
    assert result.stdout == ""
    return result.returncode, result.stderr


def check_sentence(stderr: str, *words: str) -> None:
    """One line, no traceback, that names what is wrong."""
    assert "Traceback" not in stderr
    lines = [line for line in stderr.splitlines() if line.strip()]
    assert len(lines) == 1, stderr
    for word in words:
        assert word in lines[0], stderr


def a_free_pid() -> int:
    """Return a number that no process is given: all have smaller ones."""
    return int(Path("/proc/sys/kernel/pid_max").read_text())


USAGE = {
    "pid that is no number": (["--pid", "one"], "one"),
    "pid 0": (["--pid", "0"], "0"),
    "negative pid": (["--pid=-5"], "-5"),
    "pid of nobody": (["--pid", str(a_free_pid())], "process"),
    "empty pid": (["--pid", "1,,2"], "--pid"),
    "empty comm": (["--comm", ""], "--comm"),
    "host": (["--host", "10.0.0.256"], "10.0.0.256"),
    "host name": (["--host", "localhost"], "localhost"),
    "prefix": (["--host", "10.0.0.0/33"], "10.0.0.0/33"),
    "remote host": (["--remote-host", "::g"], "--remote-host"),
    "port 0": (["--port", "0"], "0"),
    "port too large": (["--port", "65536"], "65536"),
    "port backwards": (["--port", "20-10"], "20-10"),
    "port name": (["--port", "http"], "http"),
    "local port": (["--local-port", "x"], "--local-port"),
    "remote port": (["--remote-port", "x"], "--remote-port"),
    "cgroup": (["--cgroup", "/no/such/group"], "/no/such/group"),
    "cgroup that is a directory": (["--cgroup", "/tmp"], "/tmp"),
    "netns": (["--netns", "/no/such/netns"], "/no/such/netns"),
    "netns that is a file": (["--netns", "/etc/passwd"], "/etc/passwd"),
    "netns of nobody": (["--netns", str(a_free_pid())], "--netns"),
    "family": (["--family", "5"], "5"),
    "follow nobody": (["--follow"], "--follow"),
    "kind": (["--kinds", "sends"], "sends"),
    "no kind": (["--kinds", ""], "--kinds"),
    "payload": (["--payload", "16385"], "16385"),
    "negative payload": (["--payload=-1"], "-1"),
    "payload word": (["--payload", "much"], "much"),
    "ring size": (["--ring-size", "1000"], "1000"),
    "ring size word": (["--ring-size", "large"], "large"),
    "count": (["--count", "0"], "0"),
    "duration": (["--duration", "0"], "0"),
    "duration nan": (["--duration", "nan"], "nan"),
    "hooks": (["--hooks", "magic"], "magic"),
    "format": (["--format", "xml"], "xml"),
    "unknown option": (["--frobnicate"], "--frobnicate"),
    "command that is not there": (["--", "/no/such/command"], "/no/such/command"),
}


@pytest.mark.parametrize("name", USAGE)
def test_bad_request(name: str) -> None:
    """Exit status 2 and a sentence that has the culprit in it."""
    arguments, culprit = USAGE[name]
    status, stderr = trace(*arguments)
    assert "Traceback" not in stderr
    assert status == 2, stderr
    error = [line for line in stderr.splitlines() if line.startswith(("tcprism: ", "Error: "))]
    assert len(error) == 1, stderr
    assert culprit in error[0]


def test_not_root() -> None:
    """Without privileges, the missing one is named."""
    may_read = "-all,+dac_read_search"  # Python itself, which may be below /root
    prefix = (
        *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"),
        *(f"--inh-caps={may_read}", f"--ambient-caps={may_read}"),
    )
    status, stderr = trace(prefix=prefix)
    assert status == 1, stderr
    check_sentence(stderr, "root")


@pytest.mark.parametrize("capability", ["bpf", "perfmon", "net_admin"])
def test_missing_capability(capability: str) -> None:
    """Root with all but one capability that is needed, and without what would stand in for it."""
    missing = f"-{capability},-sys_admin"
    prefix = ("setpriv", f"--bounding-set={missing}", f"--inh-caps={missing}")
    status, stderr = trace(prefix=prefix)
    assert status == 1, stderr
    check_sentence(stderr, f"CAP_{capability.upper()}")


def test_no_libbpf(tmp_path: Path) -> None:
    """The sentence has the command that installs it."""
    status, stderr = trace(TCPRISM_LIBBPF=str(tmp_path / "libbpf.so.1"))
    assert status == 1, stderr
    check_sentence(stderr, "libbpf")


def test_no_btf() -> None:
    """A kernel that does not describe itself: /sys is empty in a mount namespace of our own."""
    hide = 'mount -t tmpfs none /sys/kernel/btf && exec "$@"'
    status, stderr = trace(prefix=("unshare", "-m", "sh", "-c", hide, "sh"))
    assert status == 1, stderr
    check_sentence(stderr, "BTF")


@pytest.mark.parametrize("output", ["/no/such/directory/file", "/etc/passwd/file", "/"])
def test_unwritable_output(output: str) -> None:
    """The file is named."""
    status, stderr = trace("--output", output)
    assert status == 1, stderr
    check_sentence(stderr, output)


def test_full_output() -> None:
    """A disk without room is said to be the reason, before the ledger."""
    status, stderr = trace("--count-only", "--duration", "1.5", "--output", "/dev/full")
    assert "Traceback" not in stderr
    assert status == 1, stderr
    assert "No space left on device" in stderr
