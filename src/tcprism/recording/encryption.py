"""Recordings for one reader: encrypted to an age key (age-encryption.org) as they are written.

The library reads and writes whole streams, so each has a thread, with a pipe between it and us: of
a recording of any size, 64 kB each are in memory.
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

from tcprism.errors import RecordingError, UsageError
from tcprism.events.escape import escape_text
from tcprism.events.optional import need

MAGIC = b"age-encryption.org/"
_LONGEST = 1 << 16  # bytes of a file with identities
_KINDS = ("x25519", "ssh")
_NO_KEY = "it is encrypted, and --identity has no key for it, or it is damaged"
_DAMAGED = "the rest cannot be decrypted, as it is damaged or was cut off"


def recipients(texts: Sequence[str]) -> list[Any]:
    """Return whom to encrypt to: keys as age and OpenSSH write them. Raises UsageError."""
    return [_key(text, "Recipient", "--encrypt-to") for text in texts]


def identities(path: str) -> list[Any]:
    """Read the keys to decrypt with from a file, as age-keygen writes it. Raises UsageError."""
    try:
        with Path(path).open("rb") as file:
            text = file.read(_LONGEST).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--identity: cannot read {escape_text(path)}") from error
    lines = (line.strip() for line in text.splitlines())
    keys = [line for line in lines if line and not line.startswith("#")]
    if text.startswith("-----BEGIN"):
        return [_library().ssh.Identity.from_buffer(text.encode())]
    found = [_key(key, "Identity", f"--identity: {escape_text(path)}") for key in keys]
    if not found:
        raise UsageError(f"--identity: {escape_text(path)} has no key: age-keygen makes one")
    return found


def _library() -> Any:
    return need("pyrage", "encryption")


def _key(text: str, what: str, option: str) -> Any:
    library = _library()
    kinds = (getattr(library, kind) for kind in _KINDS)
    for kind in kinds:
        make = getattr(getattr(kind, what), "from_str", None)
        if make:
            with suppress(Exception):  # each kind has an error of its own
                return make(text)
    shown = escape_text(text) if what == "Recipient" else "what it holds"  # no key in a message
    raise UsageError(f"{option}: {shown} is no key of age's, such as age1... of age-keygen")


class _Thread(threading.Thread):
    """Runs a function of the library's, and keeps what it raises."""

    def __init__(self, work: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self._work = work
        self.error: Exception | None = None

    def run(self) -> None:
        """Work."""
        try:
            self._work()
        except Exception as error:
            self.error = error


class _Output:
    """A file that the library writes to; it hides what that raises."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write."""
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        """Hand over what is buffered."""
        self._file.flush()


class Encrypted(io.RawIOBase):
    """A file to write to, whose content is encrypted into another. It closes that, too."""

    def __init__(self, file: BinaryIO, to: Sequence[Any]) -> None:
        self._inner = file
        self._output = output = _Output(file)
        library, (ours, theirs) = _library(), os.pipe()
        self._pipe = io.FileIO(theirs, "w")

        def work() -> None:
            with open(ours, "rb") as plain:
                library.encrypt_io(plain, output, to)

        self._thread = _Thread(work)
        self._thread.start()

    def writable(self) -> bool:
        """Tell that it takes bytes."""
        return True

    def write(self, data: Any) -> int:
        """Encrypt bytes. Raises what the file raises."""
        whole = memoryview(data).cast("B")
        left = whole
        try:
            while left:
                left = left[self._pipe.write(left) :]
        except BrokenPipeError:
            self._end()
            raise
        return len(whole)

    def _end(self) -> None:
        self._thread.join()
        if self._output.error:
            raise self._output.error
        if self._thread.error:
            raise OSError(f"cannot encrypt: {self._thread.error}")

    def close(self) -> None:
        """Write what is left."""
        if self.closed:
            return
        super().close()
        self._pipe.close()
        try:
            self._end()
        finally:
            self._inner.close()


class Decrypted:
    """What a file holds that is encrypted to one of some keys; `reopen` opens it once more.

    A file, as far as recordings are read from one.
    """

    def __init__(self, reopen: Callable[[], BinaryIO], keys: Sequence[Any]) -> None:
        self._reopen = reopen
        self._keys = keys
        self._begin()

    def _begin(self) -> None:
        library, (ours, theirs) = _library(), os.pipe()
        self._plain = io.BufferedReader(io.FileIO(ours, "r"))
        self._any = False

        def work() -> None:
            with self._reopen() as file, open(theirs, "wb") as plain:
                library.decrypt_io(file, plain, self._keys)

        self._thread = _Thread(work)
        self._thread.start()

    def read(self, size: int = -1) -> bytes:
        """Read bytes, fewer at the end. Raises RecordingError where they cannot be decrypted."""
        data = self._plain.read(size)
        self._any |= bool(data)
        if not data and size:
            self._thread.join()
            if self._thread.error:
                raise RecordingError(_DAMAGED if self._any else _NO_KEY)
        return data

    def seek(self, offset: int) -> None:
        """Begin again."""
        self.close()
        self._begin()

    def close(self) -> None:
        """Read no more."""
        self._plain.close()
        self._thread.join()


_ours: list[Any] = []


def use_identity(path: str) -> None:
    """Have the keys of a file open what is encrypted. Raises UsageError, ExtraMissing."""
    _ours[:] = identities(path)


def decrypted(file: BinaryIO, reopen: Callable[[], BinaryIO]) -> BinaryIO:
    """Return a file as it is, or what it holds if that is encrypted. Raises RecordingError."""
    if not isinstance(file, io.BufferedReader) or not file.peek(len(MAGIC)).startswith(MAGIC):
        return file
    if not _ours:
        file.close()
        raise RecordingError("it is encrypted, so give its key with --identity FILE")
    return cast(BinaryIO, Decrypted(reopen, _ours))
