"""What this kernel supports, found by trying: yes, no (with the kernel's reason), or unknown."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from tcprism.errors import KernelRefused
from tcprism.features.kernel import fentry_error, has_uprobe_multi
from tcprism.kernel.object import LoadError
from tcprism.kernel.types import KernelTypes
from tcprism.probes import Hook, Probe, Program

_KPROBES = (
    Path("/sys/bus/event_source/devices/kprobe"),
    Path("/sys/kernel/tracing/kprobe_events"),
)
_CLOSED = (
    "this libbpf, which is older than 1.3, needs CAP_SYS_ADMIN on this kernel: use a newer one"
    " (TCPRISM_LIBBPF names its file), or give that capability"
)

_PROGRAM_IN_LOG = re.compile(r"prog '(\w+)'")


@dataclass(frozen=True, slots=True)
class Refusal:
    """A hook that does not work here, and the kernel's own words."""

    hook: Hook
    reason: str
    log: tuple[str, ...] = ()


@dataclass(slots=True)
class Choice:
    """Per probe the hook in use, and why each better one is not."""

    probe: Probe
    hook: Hook | None = None
    refusals: list[Refusal] = field(default_factory=list)


Loaded = TypeVar("Loaded")


def programs_of(hook: Hook, types: KernelTypes) -> list[Program]:
    """Return the programs of a hook that this kernel has the functions and tracepoints for."""
    return [
        program
        for program in hook.programs
        if _present(program.function, types.function_id)
        and _present(program.tracepoint, types.has_tracepoint)
    ]


def _present(name: str | None, question: Callable[[str], int]) -> bool:
    return name is None or bool(question(name))


def choose(
    probes: Iterable[Probe],
    forced: Mapping[str, str],
    load: Callable[[Sequence[Choice]], Loaded],
) -> tuple[list[Choice], Loaded]:
    """Return, for each probe, the best hook with which `load` succeeds, and what `load` returned.

    `load` is called with a hook in every choice and raises LoadError when the kernel refuses one.
    `forced` names, per family, the only mechanism to try, where the probe has it.
    Raises KernelRefused when the hooks of a probe run out.
    """
    choices = [Choice(probe) for probe in probes]
    candidates = {
        id(choice): _candidates(choice, forced.get(choice.probe.family)) for choice in choices
    }
    for choice in choices:
        _next_hook(choice, candidates[id(choice)])
    while True:
        try:
            return choices, load(choices)
        except LoadError as error:
            refused = _culprit(choices, error)
            for choice in _sharing_fate(choices, refused, error):
                _refuse(choice, error)
                _next_hook(choice, candidates[id(choice)])


def _candidates(choice: Choice, mechanism: str | None) -> list[Hook]:
    hooks = list(choice.probe.hooks)
    forced = [hook for hook in hooks if hook.mechanism == mechanism]
    return forced or hooks


def _next_hook(choice: Choice, candidates: list[Hook]) -> None:
    while candidates:
        choice.hook = candidates.pop(0)
        missing = _known_to_be_missing(choice.hook)
        if not missing:
            return
        choice.refusals.append(Refusal(choice.hook, missing))
    log = tuple(line for refusal in choice.refusals for line in refusal.log)
    raise KernelRefused(_exhausted(choice), log)


def _known_to_be_missing(hook: Hook) -> str:
    """Say why a hook cannot work where that is found out faster than by loading it."""
    if hook.mechanism == "fentry" and (error := fentry_error("tcp_sendmsg")):
        return f"{error.strerror} (errno {error.errno})"
    if hook.mechanism == "kprobe" and not any(map(_may_be_there, _KPROBES)):
        return "this kernel has no kprobes (CONFIG_KPROBES)"
    if hook.mechanism == "uprobe_multi" and not has_uprobe_multi():
        return "this kernel has no uprobe_multi links (6.6)"
    return ""


def _may_be_there(path: Path) -> bool:
    try:
        return path.exists()
    except PermissionError:  # tracefs is root's alone: only trying tells
        return True


def _exhausted(choice: Choice) -> str:
    reasons = "; ".join(
        f"{refusal.hook.mechanism}: {refusal.reason}" for refusal in choice.refusals
    )
    kinds = " and ".join(choice.probe.kinds)
    return f"this kernel refuses every way to see {kinds} ({reasons}); see `tcprism doctor`"


def _culprit(choices: Sequence[Choice], error: LoadError) -> Choice:
    """Find the choice whose program the kernel refused: libbpf's log names it last."""
    names = _PROGRAM_IN_LOG.findall("\n".join([*error.log, str(error)]))
    for name in reversed([*names, str(error).split(":")[0].split(" ")[-1]]):
        for choice in choices:
            if choice.hook and name in (program.name for program in choice.hook.programs):
                return choice
    raise KernelRefused(_unnamed(error), tuple(error.log)) from error


def _modules_are_closed(error: LoadError) -> bool:
    """Return whether libbpf gave up where only CAP_SYS_ADMIN may see which modules there are.

    Before 1.3 it does so when a kernel from 5.11 to 6.1, which has modules' types, lacks a function
    that is optional.
    """
    return any("failed to iterate BTF objects: -1" in line for line in error.log)


def _unnamed(error: LoadError) -> str:
    if _modules_are_closed(error):
        return _CLOSED
    said = error.log[-1].removeprefix("libbpf: ") if error.log else "nothing"
    return f"loading the BPF programs failed: {error} (libbpf says: {said}); see `tcprism doctor`"


def _sharing_fate(choices: Sequence[Choice], refused: Choice, error: LoadError) -> list[Choice]:
    """A kernel that forbids a mechanism (EPERM) forbids it to all: no need to ask again."""
    if error.errno != 1 or refused.hook is None:
        return [refused]
    mechanism = refused.hook.mechanism
    return [c for c in choices if c.hook and c.hook.mechanism == mechanism]


def _refuse(choice: Choice, error: LoadError) -> None:
    if choice.hook:
        choice.refusals.append(Refusal(choice.hook, reason_of(error), tuple(error.log)))


def reason_of(error: LoadError) -> str:
    """Return the kernel's reason in one line: libbpf's last word that names one, and the errno."""
    if _modules_are_closed(error):
        return _CLOSED
    telling = [line for line in error.log if "BTF" in line or "not found" in line]
    line = telling[-1].removeprefix("libbpf: ") if telling and error.errno == 3 else ""
    return f"{os.strerror(error.errno)} (errno {error.errno})" + (f": {line}" if line else "")
