"""Names that users give are bytes: none may stop tracing."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.tracer import TCPRISM

pytestmark = pytest.mark.native

SCRIPT = 'mount -t tmpfs "$SOURCE" "$FOLDER" && exec "$PROGRAM" trace "$@"'


@pytest.mark.parametrize("chosen", [("--kinds", "all"), ("--cgroup", "/")])
def test_names_that_are_no_text(chosen: tuple[str, ...], tmp_path: Path) -> None:
    """A mount has such a name, and so has this very process."""
    place, program = (os.fsencode(tmp_path) + name for name in (b"/\xff \x85", b"/\xff\nCapEff: 0"))
    os.mkdir(place)
    os.symlink(TCPRISM, program)  # a process is called after the file that it was started by
    names = {b"FOLDER": place, b"PROGRAM": program, b"SOURCE": b"\xff\xe2\x80\xa8\r source"}
    result = subprocess.run(
        ["unshare", "--mount", "sh", "-c", SCRIPT, "sh", *chosen,
         "--comm", "tcprism-nobody", "--duration", "0.1"],
        env={**os.environb, **names}, capture_output=True, timeout=600,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert b"no events" in result.stderr
