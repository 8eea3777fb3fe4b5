"""Print what has to be installed before the package: its dependencies, what builds it, and pip.

pip would download what builds a package into an environment of its own, although .venv needs the
same compiler of 100 MB. TCPRISM_CLANG names a compiler that is there already.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"


def requirements(compiler_is_there: bool) -> list[str]:
    """Return requirements as pip takes them, without the compiler if `compiler_is_there`."""
    project = tomllib.loads(PROJECT.read_text())
    # hatchling asks for editables only while it makes an editable install. pip is for the user.
    builders = [*project["build-system"]["requires"], "editables", "pip"]
    wanted = [*project["project"]["dependencies"], *builders]
    return [name for name in wanted if not (compiler_is_there and name.startswith("ziglang"))]


if __name__ == "__main__":
    print(*requirements(bool(os.environ.get("TCPRISM_CLANG"))), sep="\n")
