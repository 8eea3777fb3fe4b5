"""What the numbers in records mean on this machine."""

from __future__ import annotations

from contextlib import suppress

from tcprism.events.context import Context
from tcprism.kernel.cgroup import Paths, open_cgroup_root
from tcprism.kernel.types import kernel_types
from tcprism.mounts import cgroup_roots
from tcprism.names.cgroups import Names, Owners, containers
from tcprism.names.helper import Helper
from tcprism.names.interfaces import Interfaces
from tcprism.names.look_up import Machine

# One for all sources of a process: an engine is asked once.
_names = Names()


def ask_helper() -> Helper:
    """From now on, have a child ask that needs no privileges of this process. Raises OSError."""
    helper = Helper(Machine())
    _names.ask(helper)
    with suppress(OSError):  # cgroups come and go
        _names.refresh(identity for _, identity in containers(cgroup_roots()))
    return helper


def cgroup_root() -> int:
    """Return a descriptor of the cgroup v2 root, or -1 where there is none."""
    try:
        return open_cgroup_root()
    except OSError:
        return -1


def machine_context(root: int) -> Context:
    """Return the look-ups of the machine that we run on; `root` is a descriptor of cgroup v2's."""
    drops = kernel_types().enum("skb_drop_reason", "SKB_DROP_REASON_")
    drops |= kernel_types().enum("qdisc_drop_reason")
    resets = kernel_types().enum("sk_rst_reason", "SK_RST_REASON_")
    owners = Owners(Paths(root), _names)
    return Context(owners, drops.get, resets.get, Interfaces().name)
