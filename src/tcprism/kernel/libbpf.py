"""The system's libbpf through ctypes: the functions in use, and its log.

Looked for in this order: the file that TCPRISM_LIBBPF names, a libbpf.so.1 beside this module (a
platform wheel may bring one), the system's.
"""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Callable
from ctypes import POINTER, c_bool, c_char_p, c_int, c_size_t, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from tcprism.errors import LibraryMissing
from tcprism.events.escape import escape

SONAME = "libbpf.so.1"
INSTALL = (
    "install it: `apt-get install libbpf1` (Debian, Ubuntu), `dnf install libbpf` (Fedora),"
    " `pacman -S libbpf` (Arch)"
)

# name: (result, arguments); c_void_p stands for libbpf's opaque structs.
_FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "libbpf_version_string": (c_char_p, ()),
    "libbpf_probe_bpf_map_type": (c_int, (c_int, c_void_p)),
    "libbpf_probe_bpf_helper": (c_int, (c_int, c_int, c_void_p)),
    "libbpf_num_possible_cpus": (c_int, ()),
    "bpf_object__open_file": (c_void_p, (c_char_p, c_void_p)),
    "bpf_object__load": (c_int, (c_void_p,)),
    "bpf_object__close": (None, (c_void_p,)),
    "bpf_object__find_map_by_name": (c_void_p, (c_void_p, c_char_p)),
    "bpf_object__next_map": (c_void_p, (c_void_p, c_void_p)),
    "bpf_object__next_program": (c_void_p, (c_void_p, c_void_p)),
    "bpf_map__name": (c_char_p, (c_void_p,)),
    "bpf_map__fd": (c_int, (c_void_p,)),
    "bpf_map__set_max_entries": (c_int, (c_void_p, c_uint32)),
    "bpf_map__set_autocreate": (c_int, (c_void_p, c_bool)),
    "bpf_map__initial_value": (c_void_p, (c_void_p, POINTER(c_size_t))),
    "bpf_program__name": (c_char_p, (c_void_p,)),
    "bpf_program__fd": (c_int, (c_void_p,)),
    "bpf_program__set_autoload": (c_int, (c_void_p, c_bool)),
    "bpf_program__set_expected_attach_type": (c_int, (c_void_p, c_int)),
    "bpf_program__attach": (c_void_p, (c_void_p,)),
    "bpf_program__attach_cgroup": (c_void_p, (c_void_p, c_int)),
    "bpf_program__attach_uprobe": (c_void_p, (c_void_p, c_bool, c_int, c_char_p, c_size_t)),
    "bpf_program__attach_iter": (c_void_p, (c_void_p, c_void_p)),
    "bpf_iter_create": (c_int, (c_int,)),
    "bpf_link__fd": (c_int, (c_void_p,)),
    "bpf_link__destroy": (c_int, (c_void_p,)),
    "bpf_prog_load": (c_int, (c_int, c_char_p, c_char_p, c_char_p, c_size_t, c_void_p)),
    "bpf_map_update_elem": (c_int, (c_int, c_void_p, c_void_p, c_uint64)),
    "bpf_map_lookup_elem": (c_int, (c_int, c_void_p, c_void_p)),
    "bpf_obj_get_info_by_fd": (c_int, (c_int, c_void_p, POINTER(c_uint32))),
    "btf__load_vmlinux_btf": (c_void_p, ()),
    "btf__find_by_name_kind": (c_int, (c_void_p, c_char_p, c_uint32)),
    "btf__name_by_offset": (c_char_p, (c_void_p, c_uint32)),
    "btf__type_by_id": (c_void_p, (c_void_p, c_uint32)),
}

_LEVEL_DEBUG = 2  # enum libbpf_print_level
_LONGEST_LINE = 1 << 20  # a verifier's log comes as one

_Printer = ctypes.CFUNCTYPE(c_int, c_int, c_void_p, c_void_p)


@dataclass
class Log:
    """What libbpf said, oldest first; the verifier's log is in it when a program was refused.

    Thousands of debugging lines are kept only when `debug` is set.
    """

    lines: list[str] = field(default_factory=list)
    debug: bool = False

    def take(self) -> list[str]:
        """Return the lines so far and forget them."""
        lines, self.lines = self.lines, []
        return lines


class Libbpf:
    """A loaded libbpf: its functions as attributes, its version, and its log."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.log = Log()
        self._library = ctypes.CDLL(path, use_errno=True)
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(self._library, name)
            function.restype, function.argtypes = result, arguments
        self._buffer = ctypes.create_string_buffer(_LONGEST_LINE)
        self._printer = _Printer(self._print)  # libbpf keeps the pointer: it must live as long
        self._library.libbpf_set_print(self._printer)

    @property
    def version(self) -> str:
        """Return the version as libbpf gives it, such as "v1.5"."""
        return str(self.call("libbpf_version_string").decode())

    def real_path(self) -> str:
        """Return the file that was loaded, which the dynamic linker may have chosen."""
        name = os.fsencode(Path(self.path).name)
        for line in Path("/proc/self/maps").read_bytes().split(b"\n"):
            if name in line:
                return escape(line.split(maxsplit=5)[-1])
        return self.path

    def call(self, name: str, *arguments: Any) -> Any:
        """Call a libbpf function as it is."""
        return getattr(self._library, name)(*arguments)

    def checked(self, name: str, *arguments: Any) -> Any:
        """Call a function that returns a negative errno or NULL on failure.

        Raises OSError with that errno.
        """
        ctypes.set_errno(0)
        result = self.call(name, *arguments)
        if result is None or (isinstance(result, int) and result < 0):
            code = ctypes.get_errno() or (-result if result else 0)
            raise OSError(code, os.strerror(code), name)
        return result

    def _print(self, level: int, form: int, arguments: int) -> int:
        if level < _LEVEL_DEBUG or self.log.debug:
            _vsnprintf()(self._buffer, _LONGEST_LINE, form, arguments)
            self.log.lines.extend(self._buffer.value.decode(errors="replace").splitlines())
        return 0


@cache
def _vsnprintf() -> Callable[..., int]:
    function = ctypes.CDLL(None).vsnprintf
    function.argtypes = (c_char_p, c_size_t, c_void_p, c_void_p)
    return function


def _candidates() -> list[str]:
    if chosen := os.environ.get("TCPRISM_LIBBPF"):
        return [_trusted(chosen)]
    return [str(Path(__file__).with_name(SONAME)), SONAME]


def _trusted(chosen: str) -> str:
    """Return the file that is meant; root runs no code that somebody else can change.

    Raises LibraryMissing.
    """
    if os.geteuid() or "/" not in chosen:
        return chosen
    file = Path(os.path.realpath(chosen))
    for place in (file, *file.parents):
        if place.exists() and not _is_roots(place.stat()):
            raise LibraryMissing(
                f"TCPRISM_LIBBPF: {file} is not loaded as root, for others may change {place}:"
                " name one that is root's, in folders of root's"
            )
    return str(file)


def _is_roots(found: os.stat_result) -> bool:
    """Tell whether root alone can change a file, or take files out of a folder."""
    group = found.st_mode & stat.S_IWGRP and found.st_gid
    shared = (group or found.st_mode & stat.S_IWOTH) and not found.st_mode & stat.S_ISVTX
    return not (found.st_uid or shared)


_loaded: Libbpf | None = None


def load() -> Libbpf:
    """Return libbpf, loaded once.

    Raises LibraryMissing with the command that installs it.
    """
    global _loaded
    if _loaded is None:
        _loaded = _load()
    return _loaded


def _load() -> Libbpf:
    reasons = []
    for path in _candidates():
        try:
            return Libbpf(path)
        except OSError as error:
            reasons.append(str(error))
        except AttributeError as error:
            reasons.append(f"{path} is too old ({error}); libbpf 1.0 or later is needed")
    raise LibraryMissing(f"cannot load libbpf ({reasons[-1]}); {INSTALL}")
