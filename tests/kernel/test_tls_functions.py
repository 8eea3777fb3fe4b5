"""Functions of OpenSSL that few versions have or few kernels serve, of a library with no others.

What the arguments mean is from OpenSSL's manual pages: SSL_write_ex2 is of 3.3, and SSL_sendfile
needs a kernel that does TLS.
"""

import base64
import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.tls_seen import plaintext
from tests.support.tracer import tracing

pytestmark = pytest.mark.native

LIBRARY = """
#include <stddef.h>
#include <stdint.h>
int SSL_do_handshake(void *session) { return session != NULL; }
int SSL_write_ex2(void *session, const void *buffer, size_t size, uint64_t flags, size_t *written)
{
    *written = size - 2;
    return session && buffer && !flags;
}
long SSL_sendfile(void *session, int file, long offset, size_t size, int flags)
{
    return session && file >= 0 && offset == 7 && !flags ? (long)size - 3 : -1;
}
"""


def test_functions_that_openssl_may_have(tmp_path: Path) -> None:
    compiler = shutil.which("cc") or pytest.skip("a C compiler is missing")
    (tmp_path / "library.c").write_text(LIBRARY)
    path = tmp_path / "library.so"
    command = [compiler, "-O1", "-shared", "-fPIC", "-o", str(path), str(tmp_path / "library.c")]
    subprocess.run(command, check=True)
    library = ctypes.CDLL(str(path))
    library.SSL_sendfile.restype = ctypes.c_long
    written, session = ctypes.c_size_t(), ctypes.c_void_p(4096)
    chosen = ("--tls", "--pid", str(os.getpid()), "--payload", "100")
    with tracing(tmp_path / "out", *chosen) as tracer:
        size = ctypes.c_size_t(5)
        assert library.SSL_write_ex2(
            session, b"hello", size, ctypes.c_uint64(), ctypes.byref(written)
        )
        args = (ctypes.c_int(0), ctypes.c_long(7), ctypes.c_size_t(1000), ctypes.c_int(0))
        assert library.SSL_sendfile(session, *args) == 997
        assert library.SSL_sendfile(session, ctypes.c_int(-1), *args[1:]) == -1
    first, second = plaintext(tracer.events)
    for event in (first, second):
        assert (event["kind"], event["socket_source"]) == ("tls_send", "none")
    assert (first["bytes"], first["requested"]) == (3, 5)
    assert base64.b64decode(first["payload"]) == b"hel"
    assert (second["bytes"], second["requested"]) == (997, 1000)
    assert second["payload_unavailable"] == "spliced"
