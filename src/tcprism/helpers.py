"""Helpers: programs of the system that tcprism starts, as root too.

They are looked for in folders that only root can write to, never by PATH: whoever sets PATH, or the
current folder in it, would choose what root runs.
"""

from __future__ import annotations

import os

from tcprism.errors import MachineError

# The last is where NixOS has them.
FOLDERS = ("/usr/sbin", "/usr/bin", "/sbin", "/bin", "/run/current-system/sw/bin")
_PACKAGES = {
    "cat": "coreutils",
    "ip": "iproute2",
    "nft": "nftables",
    "nsenter": "util-linux",
    "tc": "iproute2",
    "unshare": "util-linux",
}


def find_helper(name: str) -> str:
    """Return the absolute path of a program. Raises MachineError, which names its package."""
    for folder in FOLDERS:
        path = os.path.join(folder, name)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    raise MachineError(f"{name} is missing, install the package {_PACKAGES[name]}")
