"""Probes: per family of events, the ways to hook it, best first, and what each cannot tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MECHANISMS = ("fentry", "kprobe", "tracepoint")

# How a program gets to its place: by the kernel's BTF (fentry, fexit, tp_btf), by a kprobe, at the
# cgroup v2 root, as an iterator that runs once over what is there when tracing begins, or where
# functions of a library begin or return.
Attach = Literal["btf", "kprobe", "cgroup", "iterator", "uprobe", "uretprobe"]


@dataclass(frozen=True, slots=True)
class Program:
    """A BPF program, and how it is attached.

    `kinds` are the events that it makes. It is left out on a kernel without the `function` or the
    `tracepoint`. `order` is its place among the programs of all probes: lower ones go first. One
    that is `late` waits until somebody uses io_uring, since it costs each send. `symbols` are the
    functions of libraries that a uprobe is for; with `returns` it sits on each of their RETs.
    """

    name: str
    kinds: tuple[str, ...] = ()
    attach: Attach = "btf"
    function: str | None = None
    tracepoint: str | None = None
    order: int = 0
    late: bool = False
    symbols: tuple[str, ...] = ()
    returns: bool = False


@dataclass(frozen=True, slots=True)
class Hook:
    """One way to see a family's events: programs that are loaded together.

    `since` is the first kernel.
    """

    mechanism: str
    name: str
    programs: tuple[Program, ...]
    since: str
    cannot_tell: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Probe:
    """A family of events: its kinds and its hooks in order of preference."""

    family: str
    kinds: tuple[str, ...]
    hooks: tuple[Hook, ...]
