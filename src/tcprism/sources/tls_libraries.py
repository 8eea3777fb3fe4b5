"""TLS libraries while tracing: hooks are on those that are there, and on those that appear."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from tcprism.errors import KernelRefused
from tcprism.features.uretprobe import seccomp_sees_return_probes
from tcprism.kernel.code_mappings import CodeMappings
from tcprism.kernel.object import LoadError
from tcprism.tls.libraries import Found, Library, Search
from tcprism.tls.watch import Watch

_SECCOMP = (
    "on this kernel a return probe may kill a program that filters its system calls (seccomp), and"
    " --tls needs such probes: use a kernel whose seccomp lets uretprobe() pass"
)


class TlsLibraries:
    """Puts hooks on all TLS libraries with `attach`, from the start until it is closed.

    `attach` tells whether there was anything to attach to; it raises LoadError. `lines` say whose
    plaintext is read. Raises KernelRefused where hooks could harm.
    """

    def __init__(self, attach: Callable[[Library], bool]) -> None:
        if seccomp_sees_return_probes():
            raise KernelRefused(_SECCOMP)
        self._attach = attach
        self._search = Search()
        self._mappings = CodeMappings()  # before the search: nothing is missed between
        try:
            found = self._search.find()
            hooked = [library for library in found.libraries if attach(library)]
        except BaseException:
            self.close()
            raise
        self._watch = Watch(self._search, found.libraries, self._mappings)
        self.lines = _lines(hooked, found)

    def look(self) -> None:
        """Put hooks on libraries that have appeared since."""
        for library in self._watch.new():
            try:
                self._attach(library)
            except LoadError:  # its process has ended: another may have it under another path
                self._watch.forget(library)

    def covers(self, pid: int) -> bool:
        """Tell whether a process has a library with hooks; one that has ended may have had."""
        return bool(self._search.find([pid]).users)

    def close(self) -> None:
        """Watch no longer."""
        self._mappings.close()


def _lines(hooked: Sequence[Library], found: Found) -> list[str]:
    if not hooked:
        return ["no TLS library is here whose plaintext can be read: `tcprism doctor --tls`"]
    users = Counter(path for used in found.users.values() for path in {one.path for one in used})
    return [
        "reading the plaintext of TLS, now and of processes that start later, in:",
        *(
            f"  {one.name} ({one.version or one.flavor}), used by {users[one.path]} processes"
            for one in hooked
        ),
    ]
