"""Where probes go: to the function behind SSL_write(), only if the code proves that it is."""

from __future__ import annotations

from pathlib import Path

from tcprism.tls.cheap import cheap_functions

INNER, PUBLIC, EXTENDED, BIO, FREE = 0x100, 0x200, 0x300, 0x400, 0x480
SUB = bytes.fromhex("4883ec08")
PUSH = bytes.fromhex("4156")
FUNCTIONS = {"SSL_write": PUBLIC, "SSL_write_ex": EXTENDED, "SSL_free": FREE, "BIO_write": BIO}


def call(at: int, target: int) -> bytes:
    return b"\xe8" + (target - at - 5).to_bytes(4, "little", signed=True)


def library(folder: Path, **changed: bytes) -> str:
    code = {
        "inner": (INNER, PUSH),
        "public": (PUBLIC, SUB + b"\x90" * 6 + call(PUBLIC + 10, INNER)),
        "extended": (EXTENDED, SUB + call(EXTENDED + 4, INNER)),
        "bio": (BIO, SUB + bytes.fromhex("31c0 85d2 7e12")),
        "free": (FREE, bytes.fromhex("4885ff 0f8497030000")),  # test %rdi,%rdi; je
    }
    file = bytearray(0x500)
    for name, (at, there) in code.items():
        there = changed.get(name, there)
        file[at : at + len(there)] = there
    path = folder / "library"
    path.write_bytes(file)
    return str(path)


def test_the_function_behind_both(tmp_path: Path) -> None:
    found = cheap_functions(library(tmp_path), FUNCTIONS)
    assert found == {"SSL_write_ex": INNER, "SSL_free": FREE + 3, "BIO_write": BIO + 8}


def test_what_is_not_proved_stays_where_it_is(tmp_path: Path) -> None:
    stays = {**FUNCTIONS, "SSL_free": FREE + 3, "BIO_write": BIO + 8}
    another = SUB + b"\x90" * 6 + call(PUBLIC + 10, INNER + 1)
    shuffles = SUB + bytes.fromhex("4989c8") + call(EXTENDED + 7, INNER)  # mov %rcx,%r8
    for changed in ({"inner": SUB}, {"public": another}, {"extended": shuffles}):
        assert cheap_functions(library(tmp_path, **changed), FUNCTIONS) == stays
    uses = library(tmp_path, bio=SUB + bytes.fromhex("89d6 85d2 7e12"))  # mov %edx,%esi
    assert cheap_functions(uses, FUNCTIONS)["BIO_write"] == BIO
    changes = library(tmp_path, free=bytes.fromhex("4885ff 4889f7 0f8497030000"))  # mov %rsi,%rdi
    assert cheap_functions(changes, FUNCTIONS)["SSL_free"] == FREE
