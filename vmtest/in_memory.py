"""The files that a guest has in its memory, above what it fetches from the host one by one.

To open a file of the host takes a guest three round trips, some milliseconds each where it is
emulated: two thirds of the time in which Python starts there.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from cpio import entry

# What tests start.
TOOLS = (
    *("env", "ip", "mount", "nft", "nsenter", "sh", "sleep", "ss", "sysctl", "tc", "tcpdump"),
    "unshare",
)

# Reads tests as pytest does, has the modules that these start, and prints all files of that.
LOAD = """
import contextlib, importlib, io, os, sys, pytest
os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
with contextlib.redirect_stdout(io.StringIO()):
    pytest.main([sys.argv[1], "--collect-only", "-qq", "-p", "no:cacheprovider"])
for name in sys.argv[2:]:
    importlib.import_module(name)
for module in [*sys.modules.values()]:
    for name in ("__file__", "__cached__"):
        print(getattr(module, name, None) or "")
with open("/proc/self/maps") as maps:
    for line in maps:
        print(line.split(maxsplit=5)[-1].strip())
"""


def loaded_by_tests(tests: Path, modules: Iterable[str]) -> list[Path]:
    """Return what Python loads to run some tests that start these modules; what it links, too."""
    command = [sys.executable, "-c", LOAD, str(tests), *modules]
    printed = subprocess.check_output(command, text=True).splitlines()
    settings = [path for folder in sys.path for path in Path(folder).glob("*.pth")]
    starts = [Path(sys.executable), Path(sys.prefix, "pyvenv.cfg"), *settings]
    found = [Path(line) for line in printed if line.startswith("/")]
    return [path for path in dict.fromkeys([*starts, *found]) if path.is_file()]


def loaded_by_tools() -> list[Path]:
    """Return the programs that tests start, with their libraries."""
    tools = [path for tool in TOOLS if (path := shutil.which(tool))]
    told = subprocess.run(["ldd", *tools], capture_output=True, text=True).stdout
    libraries = re.findall(r"(/\S+) \(0x", told)
    return [Path(name) for name in dict.fromkeys([*tools, *libraries])]


def below(*folders: Path) -> list[Path]:
    """Return all files below some folders."""
    return [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]


def entries(root: str, paths: Iterable[Path]) -> Iterator[bytes]:
    """Yield files below `root`, each where it is on the host, with folders and links on the way."""
    seen: set[Path] = set()
    for path in paths:
        for step in steps(path):
            if step not in seen:
                seen.add(step)
                yield copy(root, step)


def steps(path: Path) -> Iterator[Path]:
    """Yield each folder and each link on the way to a file, then the file."""
    here, ahead = Path("/"), list(path.parts[1:])
    while ahead:
        name = ahead.pop(0)
        if name == "..":
            here = here.parent
            continue
        here /= name
        yield here
        if here.is_symlink():
            target = Path(os.readlink(here))
            here = Path("/") if target.is_absolute() else here.parent
            ahead = [*target.parts[target.is_absolute() :], *ahead]


def copy(root: str, path: Path) -> bytes:
    found = path.lstat()
    data = b""
    if stat.S_ISLNK(found.st_mode):
        data = os.readlink(path).encode()
    elif stat.S_ISREG(found.st_mode):
        data = path.read_bytes()
    return entry(f"{root}{path}", data, found.st_mode, modified=int(found.st_mtime))
