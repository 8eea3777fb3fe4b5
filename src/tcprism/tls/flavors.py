"""The TLS libraries that we know: their functions, and how their versions are written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from tcprism.tls.elf import ElfFile

FlavorName = Literal["openssl", "gnutls", "nss", "go", "rustls"]


@dataclass(frozen=True)
class Flavor:
    """A family of TLS libraries; `title` is its name for people.

    `mark` is a function by which the library is known. Of its `functions` those are probed that it
    has. `companion` are functions of the same library that may be in a second file, which counts
    only in a process that has the first: libcrypto and NSPR alone do no TLS.
    """

    name: FlavorName
    title: str
    mark: bytes
    functions: tuple[bytes, ...]
    companion_mark: bytes | None
    companion: tuple[bytes, ...]
    versions: tuple[re.Pattern[bytes], ...]


FLAVORS = (
    # OpenSSL, BoringSSL and LibreSSL have the same functions. GnuTLS has a library that offers some
    # of them as well, above its own, but never this one.
    Flavor(
        "openssl",
        "OpenSSL",
        b"SSL_do_handshake",
        (
            b"SSL_accept",
            b"SSL_connect",
            b"SSL_do_handshake",
            b"SSL_free",
            b"SSL_peek",
            b"SSL_peek_ex",
            b"SSL_read",
            b"SSL_read_early_data",
            b"SSL_read_ex",
            b"SSL_sendfile",
            b"SSL_shutdown",
            b"SSL_write",
            b"SSL_write_early_data",
            b"SSL_write_ex",
            b"SSL_write_ex2",
        ),
        b"BIO_write",
        (b"BIO_read", b"BIO_write"),
        (
            re.compile(rb"LibreSSL [0-9]+\.[0-9]+\.[0-9]+"),
            re.compile(rb"OpenSSL [0-9]+\.[0-9]+\.[0-9]+[a-z]*"),
            re.compile(rb"BoringSSL"),
        ),
    ),
    Flavor(
        "gnutls",
        "GnuTLS",
        b"gnutls_record_send",
        (
            b"gnutls_bye",
            b"gnutls_deinit",
            b"gnutls_handshake",
            b"gnutls_record_recv",
            b"gnutls_record_send",
        ),
        None,
        (),
        (re.compile(rb"(?<=\0)3\.[0-9]+\.[0-9]+(?=\0)"),),
    ),
    Flavor(
        "nss",
        "NSS",
        b"SSL_ImportFD",
        (b"SSL_ForceHandshake", b"SSL_ImportFD"),
        b"PR_Write",
        (b"PR_Close", b"PR_Read", b"PR_Recv", b"PR_Send", b"PR_Write", b"PR_Writev"),
        (re.compile(rb"(?<=Version: )NSS [0-9]+\.[0-9.]*[0-9]"),),
    ),
)

TITLES = {flavor.name: flavor.title for flavor in FLAVORS} | {"go": "Go", "rustls": "rustls"}


def find_version(file: ElfFile, flavor: Flavor) -> str | None:
    """Return the version that the read-only data names, such as OpenSSL 3.0.17, or None."""
    section = file.section(b".rodata")
    if section is None:
        return None
    for chunk in file.chunks(section):
        for pattern in flavor.versions:  # each begins with its own text, for which search is fast
            match = pattern.search(chunk)
            if match:
                version = match[0].decode("ascii")
                return f"{flavor.title} {version}" if version[0].isdigit() else version
    return None
