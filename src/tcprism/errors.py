"""All errors, as one tree.

    Error
    ├── UsageError            the request makes no sense; exit status 2
    │   └── UnknownTarget     a pid, cgroup or namespace that does not exist
    ├── RecordingError        a recording that cannot be read; exit status 1
    └── MachineError          this machine cannot do it; exit status 1
        ├── PermissionMissing a privilege is missing, named
        ├── LibraryMissing    no libbpf or libpcap, or one that is too old
        ├── ExtraMissing      a Python library that is not installed, named
        ├── KernelRefused     the kernel refused every way to see a kind of event
        ├── OutputError       the output cannot be written
        └── ServerError       ClickHouse is not there, or refuses

Each message is one sentence that says what to do.
"""


class Error(Exception):
    """Anything that tcprism raises on purpose."""

    exit_status = 1


class UsageError(Error):
    """The request makes no sense."""

    exit_status = 2


class UnknownTarget(UsageError):
    """A pid, cgroup or network namespace that is not there."""


class MachineError(Error):
    """This machine cannot do what was asked."""


class PermissionMissing(MachineError):
    """A privilege is missing; the message names it."""


class LibraryMissing(MachineError):
    """A library of the system is not there, or too old."""


class KernelRefused(MachineError):
    """The kernel refused every way to see a kind of event; `log` is libbpf's, line by line."""

    def __init__(self, message: str, log: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.log = log


class OutputError(MachineError):
    """The output cannot be written."""


class ServerError(MachineError):
    """ClickHouse is not there, or refuses; `code` is its number of the error, if any."""

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class ExtraMissing(MachineError):
    """A library that is not installed with tcprism alone; the message has the command."""


class RecordingError(Error):
    """A recording is missing, damaged or from a version that this one does not know."""
