"""Questions to the running kernel's own type information (BTF)."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

from tcprism.errors import KernelRefused
from tcprism.kernel import libbpf

VMLINUX_BTF = Path("/sys/kernel/btf/vmlinux")

# enum of BTF kinds, include/uapi/linux/btf.h
_KIND_ENUM = 6
_KIND_TYPEDEF = 8
_KIND_FUNC = 12


class _Type(ctypes.Structure):
    """struct btf_type."""

    _fields_ = (
        ("name_off", ctypes.c_uint32),
        ("info", ctypes.c_uint32),
        ("size_or_type", ctypes.c_uint32),
    )


class _Member(ctypes.Structure):
    """struct btf_enum."""

    _fields_ = (("name_off", ctypes.c_uint32), ("value", ctypes.c_int32))


class KernelTypes:
    """The running kernel's BTF.

    Raises KernelRefused when the kernel has none.
    """

    def __init__(self) -> None:
        self._library = libbpf.load()
        try:
            self._btf = self._library.checked("btf__load_vmlinux_btf")
        except OSError as error:
            raise KernelRefused(
                f"this kernel has no BTF type information ({VMLINUX_BTF}: {error.strerror});"
                " use a kernel built with CONFIG_DEBUG_INFO_BTF=y"
            ) from error

    def _find(self, name: str, kind: int) -> int:
        return int(self._library.call("btf__find_by_name_kind", self._btf, name.encode(), kind))

    def function_id(self, name: str) -> int:
        """Return a function's BTF id; 0 when the kernel has none of this name to trace."""
        return max(self._find(name, _KIND_FUNC), 0)

    def has_tracepoint(self, name: str) -> bool:
        """Tell whether the kernel has this tracepoint."""
        return self._find(f"btf_trace_{name}", _KIND_TYPEDEF) > 0

    def parameters(self, function: str) -> int:
        """Return how many parameters a function has; 0 when it is unknown."""
        identifier = self.function_id(function)
        if not identifier:
            return 0
        prototype = self._type(self._type(identifier).size_or_type)
        return int(prototype.info) & 0xFFFF

    def enum(self, name: str, prefix: str = "") -> dict[int, str]:
        """Return an enum's names by value, less a prefix; empty where there is no such enum."""
        identifier = self._find(name, _KIND_ENUM)
        if identifier <= 0:
            return {}
        address = self._library.call("btf__type_by_id", self._btf, identifier)
        count = _Type.from_address(address).info & 0xFFFF
        members = (_Member * count).from_address(address + ctypes.sizeof(_Type))
        return {
            member.value: self._name(member.name_off).removeprefix(prefix) for member in members
        }

    def _name(self, offset: int) -> str:
        return str(self._library.call("btf__name_by_offset", self._btf, offset).decode())

    def _type(self, identifier: int) -> _Type:
        address = self._library.call("btf__type_by_id", self._btf, identifier)
        return _Type.from_address(address)


@cache
def kernel_types() -> KernelTypes:
    """Return the kernel's types, read once."""
    return KernelTypes()
