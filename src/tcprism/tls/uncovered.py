"""Why a process that does TLS has no functions to probe: by what its files prove, never a guess."""

from __future__ import annotations

import re

from tcprism.tls.elf import NOT_X86_64, ElfFile, Unreadable
from tcprism.tls.golang import NEEDS_EXTRA, UNSUPPORTED, go_program
from tcprism.tls.libraries import CANNOT_READ, has_library
from tcprism.tls.mappings import MOST_FILES, TOO_MANY, Mapping, executable_mappings, open_mapping
from tcprism.tls.rustls import why_not

SMALLEST = 1 << 18  # bytes: code for TLS takes more

# Paths of source files, which error messages and panics name.
_SOURCES = (
    (re.compile(rb"ssl/(?:d1_lib|ssl_lib)\.cc?\0"), "no symbols"),  # OpenSSL, BoringSSL
)
_REASONS = {NOT_X86_64: UNSUPPORTED, UNSUPPORTED: UNSUPPORTED, NEEDS_EXTRA: NEEDS_EXTRA}
_EXPORTED = {
    b"JNI_CreateJavaVM": "Java",
    b"mbedtls_ssl_write": "Mbed TLS",
    b"s2n_send": "s2n-tls",
    b"wolfSSL_write": "wolfSSL",
}


class Uncovered:
    """Finds files that do TLS with functions that we do not know; examines each file once."""

    def __init__(self) -> None:
        self._reasons: dict[tuple[int, int], str | None] = {}

    def of(self, pid: int, covered: set[str]) -> dict[str, str]:
        """Return the reason for each such file of a process, by its name as in maps, escaped.

        `covered` has the names of files to leave out. Raises OSError if the process has ended or
        may not be examined.
        """
        mappings = executable_mappings(pid)
        found = {
            mapping.name: self._examine(mapping)
            for mapping in mappings[:MOST_FILES]
            if mapping.name not in covered
        }
        if len(mappings) > MOST_FILES:
            found["other files"] = TOO_MANY
        return {name: why for name, why in found.items() if why}

    def _examine(self, mapping: Mapping) -> str | None:
        key = mapping.device, mapping.inode
        if key not in self._reasons:
            try:
                with open_mapping(mapping) as file:
                    large = file.about.st_size >= SMALLEST
                    reason = _reason(file.descriptor) if large else None
                    # A process may map a library after the libraries were looked for.
                    known = reason is not None and has_library(file.descriptor)
                    self._reasons[key] = None if known else reason
            except OSError:
                return CANNOT_READ
        return self._reasons[key]


def _reason(descriptor: int) -> str | None:
    try:
        file = ElfFile(descriptor)
        go_program(file)
        exported = file.exported()
        names = exported.addresses(_EXPORTED) if exported else {}
        for name in names:
            return _EXPORTED[name]
        return why_not(file) or _reason_in_sources(file)
    except Unreadable as error:
        return _REASONS.get(str(error))


def _reason_in_sources(file: ElfFile) -> str | None:
    constants = file.section(b".rodata")
    if constants:
        for chunk in file.chunks(constants):
            for source, reason in _SOURCES:
                if source.search(chunk):
                    return reason
    return None
