"""Where functions are in a file, as GNU's nm and objdump say."""

import re
import shutil
import subprocess

import pytest


def offsets(path: str, *names: str, dynamic: bool = True) -> dict[str, int]:
    """Return the file offset of each function that the file defines."""
    for tool in ("nm", "objdump"):
        if not shutil.which(tool):
            pytest.skip("binutils is missing")
    listed = subprocess.run(
        ["nm", "--defined-only", *(["-D"] if dynamic else []), path],
        check=True,
        capture_output=True,
        text=True,
    )
    found = re.findall(r"^([0-9a-f]+) [TtW] ([^@\n]+)", listed.stdout, re.M)
    addresses = {name: int(address, 16) for address, name in found}
    return {name: _offset(path, addresses[name]) for name in names if name in addresses}


def _offset(path: str, address: int) -> int:
    shown = subprocess.run(
        ["objdump", "-dF", f"--start-address={address}", f"--stop-address={address + 1}", path],
        check=True,
        capture_output=True,
        text=True,
    )
    offset = re.search(r"\(File Offset: 0x([0-9a-f]+)\)", shown.stdout)
    assert offset, shown.stdout
    return int(offset[1], 16)
