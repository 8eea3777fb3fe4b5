"""TLS libraries while tracing: hooks are on those that are there, and on those that appear."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from tcprism.errors import KernelRefused
from tcprism.features.uretprobe import seccomp_sees_return_probes
from tcprism.filters import Criteria
from tcprism.interrupts import Interrupted
from tcprism.kernel.code_mappings import CodeMappings
from tcprism.kernel.hellos import Hellos
from tcprism.kernel.object import LoadError
from tcprism.tls.libraries import CANNOT_READ, Found, Library, Search
from tcprism.tls.mappings import open_file
from tcprism.tls.uncovered import Uncovered
from tcprism.tls.watch import Watch

UNKNOWN_LIBRARY = "no library that is known"
ENDED = "it had ended before its files could be examined"

_SECCOMP = (
    "on this kernel a return probe may kill a program that filters its system calls (seccomp), and"
    " --tls needs such probes: use a kernel whose seccomp lets uretprobe() pass"
)


class TlsLibraries:
    """Puts hooks on all TLS libraries with `attach`, from the start until it is closed.

    `attach` tells whether there was anything to attach to; it may raise LoadError, so that no file
    that somebody made up keeps the others from being traced. `lines` say whose plaintext is read of
    those that are `chosen`, `hooked` are the libraries.
    Raises KernelRefused where hooks could harm, and LoadError if the kernel refuses all libraries.
    """

    def __init__(self, attach: Callable[[Library], bool], chosen: Criteria) -> None:
        if seccomp_sees_return_probes():
            raise KernelRefused(_SECCOMP)
        self._attach = attach
        self._settled = False
        self.hooked: list[Library] = []
        self._refusal: LoadError | None = None
        self._search = Search()
        self._uncovered = Uncovered()
        self._lock = threading.Lock()
        self._hellos: Hellos | None = None
        self._mappings = CodeMappings()  # before the search: nothing is missed between
        try:
            found = self._search.find()
            known = [library for library in found.libraries if self._put_on(library)]
            if self._refusal and not self.hooked:
                raise self._refusal
        except BaseException:
            self.close()
            raise
        self._watch = Watch(self._search, known, self._mappings)
        self.lines = _lines(self.hooked, found, chosen)

    def look_at_hellos(self, ring: int) -> None:
        """Have a thread look for new libraries at once when one that is not known sends a hello.

        A round trip is left before its session moves any plaintext. The kernel writes to the ring
        buffer `ring`, a descriptor, for each.
        """
        self._hellos = Hellos(ring)
        self._thread = threading.Thread(target=self._run, daemon=True, name="hellos")
        self._thread.start()

    def _run(self) -> None:
        with suppress(Interrupted):
            while self._hellos and self._hellos.wait():
                self.look()

    def look(self) -> None:
        """Put hooks on libraries that have appeared since. Costs 2 µs if no program has started."""
        with self._lock:
            for library in () if self._settled else self._watch.new():
                if not self._put_on(library):
                    self._watch.forget(library)

    def settle(self) -> None:
        """Watch no longer, and accuse nobody: what processes map cannot be read from now on."""
        self._settled = True
        self.close()

    def uncovered(self, pid: int) -> str | None:
        """Say why a process may do TLS whose plaintext is not read.

        None: it has a library with hooks, and none without; or nobody can tell.
        """
        if self._settled:
            return None
        with self._lock:
            libraries = self._search.find([pid]).libraries
        hooked = any(one.same_as(other) for one in libraries for other in self.hooked)
        try:
            reasons = self._uncovered.of(pid, {library.name for library in libraries})
        except OSError:
            return ENDED
        for name, reason in reasons.items():
            if reason != CANNOT_READ:
                return f"{reason} in {name}"
        return None if hooked else UNKNOWN_LIBRARY

    def close(self) -> None:
        """Watch no longer."""
        if self._hellos:
            self._hellos.end()
            self._thread.join()
            self._hellos.close()
            self._hellos = None
        self._mappings.close()

    def _put_on(self, library: Library) -> bool:
        """Attach to a library if there is anything; False if it is no longer where it was found."""
        try:
            with open_file(os.fsencode(library.path)) as file:
                if (file.about.st_dev, file.about.st_ino) != library.identity.place:
                    return False
                if self._attach(replace(library, path=f"/proc/self/fd/{file.descriptor}")):
                    self.hooked.append(library)
        except LoadError as error:
            self._refusal = error
        except OSError:
            return False
        return True


def _lines(hooked: Sequence[Library], found: Found, chosen: Criteria) -> list[str]:
    if chosen.pids and not chosen.follow:
        return _lines_of(chosen.pids, hooked, found)
    if not hooked:
        return ["no TLS library is here whose plaintext can be read: `tcprism doctor --tls`"]
    what = "" if chosen == Criteria() else " that the filters choose"
    return [
        f"reading the plaintext of TLS{what}, now and of processes that start later, in:",
        *(f"{_about(one)}, used by {_processes(_users(one, found))}" for one in hooked),
    ]


def _lines_of(pids: Sequence[int], hooked: Sequence[Library], found: Found) -> list[str]:
    """Say whose plaintext is read where some processes alone are traced."""
    whose = f"process{'' if len(pids) == 1 else 'es'} {', '.join(map(str, pids))}"
    used = [library for pid in pids for library in found.users.get(pid, ())]
    libraries = [one for one in hooked if any(map(one.same_as, used))]
    if not libraries:
        return [f"no TLS library is in {whose} so far whose plaintext can be read"]
    return [f"reading the plaintext of TLS of {whose}, in:", *map(_about, libraries)]


def _about(library: Library) -> str:
    return f"  {library.name} ({library.version or library.flavor})"


def _processes(number: int) -> str:
    return f"{number} process{'' if number == 1 else 'es'}"


def _users(library: Library, found: Found) -> int:
    return sum(any(map(library.same_as, used)) for used in found.users.values())
