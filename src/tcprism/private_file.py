"""Output files: they hold payload, so only their owner may read them."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path
from typing import Any

from tcprism.errors import OutputError


class PrivateFile(io.FileIO):
    """A file to write to. It keeps what it has until there is something new: a run may fail.

    From then on its mode is 0600. `doubt` says who else may read it all the same, if anybody.
    With `new`, there must be no such file. Raises OutputError.
    """

    def __init__(self, path: Path, new: bool = False) -> None:
        self.path = path
        self._begun = False
        try:
            descriptor, self._created = _open(path, new)
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror}") from error
        super().__init__(descriptor, "wb")
        found = os.fstat(descriptor)
        self._regular = stat.S_ISREG(found.st_mode)
        foreign = self._regular and found.st_uid != os.geteuid()
        self.doubt = f"{path} belongs to user {found.st_uid}, who may read it" if foreign else ""

    def begin(self) -> None:
        """Drop what was there before."""
        if not self._begun and self._regular:
            os.fchmod(self.fileno(), 0o600)
            self.truncate(0)
        self._begun = True

    def write(self, data: Any) -> int:
        """Write, in place of what was there before."""
        self.begin()
        return super().write(data)

    def discard(self) -> None:
        """Take the file away if this run made it and has written nothing."""
        if self._created and not self._begun:
            self.path.unlink(missing_ok=True)
            self._created = False


def _open(path: Path, new: bool) -> tuple[int, bool]:
    """Return the file and whether it was made."""
    flags = os.O_WRONLY | os.O_CLOEXEC
    try:
        return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600), True
    except FileExistsError:
        if new:
            raise
    return os.open(path, flags | _following(path)), False


def _following(path: Path) -> int:
    """Return the flag that keeps from following a link, but for one's own and the system's.

    Whoever has the link chooses the file, and which one root overwrites.
    """
    if not path.is_symlink():
        return os.O_NOFOLLOW  # what is there now must be no link later either
    if (owner := path.lstat().st_uid) not in (0, os.geteuid()):
        raise OutputError(
            f"cannot write {path}: it is a link of user {owner}; name the file itself"
        )
    return 0
