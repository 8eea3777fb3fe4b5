"""`tcprism doctor`: which privileges this process has, what each is for, and how to have them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tcprism.features import machine
from tcprism.sources.least_privilege import pwd_name


@dataclass(frozen=True, slots=True)
class Purpose:
    """What some capabilities are for; for `by_admin`, CAP_SYS_ADMIN stands in for them."""

    capabilities: tuple[str, ...]
    purpose: str
    by_admin: bool = False


# docs/privileges.md has it by hook and kernel.
PURPOSES = (
    Purpose(("CAP_BPF", "CAP_PERFMON"), "any event, and snapshots", by_admin=True),
    Purpose(("CAP_NET_ADMIN",), "transmit, probe and receive, and the times of requests"),
    Purpose(("CAP_DAC_READ_SEARCH", "CAP_SYS_PTRACE"), "--tls in processes of other users"),
    Purpose(
        ("CAP_SYS_ADMIN",),
        "kprobes, --tls on most kernels, what BPF programs cost (serve), and with a libbpf before"
        " 1.3 all on Linux 5.11 to 6.1",
    ),
)
_ADVICE = (
    "to have them all, run it by sudo; as a service, AmbientCapabilities= gives them, as in",
    "share/systemd/tcprism.service; as USER, `sudo setpriv --reuid=USER --init-groups",
    "--inh-caps=+bpf,+perfmon,+net_admin --ambient-caps=+bpf,+perfmon,+net_admin tcprism ...`;",
    "setcap does not help, for tcprism is a script",
)


def examine() -> dict[str, Any]:
    """Return who this process is, and for what it has the capabilities, or lacks which."""
    have = machine.capabilities()
    return {
        "user": pwd_name(os.geteuid()),
        "purposes": [
            {
                "for": each.purpose,
                "capabilities": list(each.capabilities),
                "missing": [] if _stands_in(each, have) else _missing(each, have),
            }
            for each in PURPOSES
        ],
    }


def _stands_in(purpose: Purpose, have: Mapping[str, bool]) -> bool:
    return purpose.by_admin and have["CAP_SYS_ADMIN"]


def _missing(purpose: Purpose, have: Mapping[str, bool]) -> list[str]:
    return [name for name in purpose.capabilities if not have[name]]


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield the findings in words, with what to do where something is missing."""
    if not any(each["missing"] for each in found["purposes"]):
        yield f"privileges    {found['user']} has all that any hook needs"
        return
    yield f"privileges    {found['user']}"
    for each in found["purposes"]:
        names = " and ".join(each["missing"] or each["capabilities"])
        yield f"{'':<14}{'lacks' if each['missing'] else 'has'} {names}, for {each['for']}"
    yield from (f"{'':<14}{line}" for line in _ADVICE)
