"""The functions of libcrypto that write into memory are those that it itself names."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tcprism.tls.cheap import cheap_functions
from tcprism.tls.memory import memory_functions
from tests.unit.tls.disassembly import offsets
from tests.unit.tls.test_libraries import linked


@contextmanager
def opened(path: str | Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def named(path: str, kind: str, action: str) -> int:
    """Return the offset in the file of the function that writes or reads."""
    library = ctypes.CDLL(path)
    get = getattr(library, f"BIO_meth_get_{action}")
    for function in (getattr(library, kind), get):
        function.restype = ctypes.c_void_p
    address = get(ctypes.c_void_p(getattr(library, kind)()))
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, end = (int(each, 16) for each in line.split()[0].split("-"))
        if start <= address < end:
            return int(address - start + int(line.split()[2], 16))
    raise AssertionError(hex(address))


def test_the_functions_for_memory() -> None:
    path = linked("libcrypto")
    with opened(path) as descriptor:
        found = memory_functions(descriptor)
    assert found == {
        f"{stem}_{action}": named(path, f"BIO_s_{stem}", action)
        for stem in ("mem", "bio")
        for action in ("write", "read")
    }


def test_only_where_bio_write_is_others() -> None:
    path = linked("libcrypto")
    alone = offsets(path, "BIO_write")
    assert cheap_functions(path, alone).keys() == {
        *("BIO_write", "mem_write", "bio_write", "mem_read", "bio_read"),
    }
    assert "mem_write" not in cheap_functions(path, alone | {"SSL_read": alone["BIO_write"]})


@pytest.mark.parametrize("name", [b"memory buffer\0", b"BIO pair\0", b"BIO_s_bio\0"])
def test_nothing_unless_all_is_proved(tmp_path: Path, name: bytes) -> None:
    content = Path(linked("libcrypto")).read_bytes()
    assert name in content
    odd = tmp_path / "odd.so"
    odd.write_bytes(content.replace(name, b"X" + name[1:]))
    with opened(odd) as descriptor:
        assert memory_functions(descriptor) == {}


def test_a_file_that_is_cut(tmp_path: Path) -> None:
    content = Path(linked("libcrypto")).read_bytes()
    odd = tmp_path / "odd.so"
    for size in (0, 64, 5000, len(content) // 4, len(content) // 2, len(content) - 5000):
        odd.write_bytes(content[:size])
        with opened(odd) as descriptor:
            assert memory_functions(descriptor) == {}
