"""The step that a build of the package adds: the BPF object, compiled and shipped with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class BpfBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Compiles bpf/ before a wheel or an editable install is put together."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        script = Path(self.root, "tools/build_bpf.py")
        if subprocess.run([sys.executable, str(script)]).returncode:
            sys.exit("tcprism: the BPF object could not be built")
        build_data["artifacts"].append("src/tcprism/kernel/tcprism.bpf.o")
