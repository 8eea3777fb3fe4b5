"""Which hooks must load on the running kernel, asked of the kernel itself and not of tcprism."""

from functools import cache
from pathlib import Path

ALL = ("fentry", "kprobe", "tracepoint")


@cache
def types() -> bytes:
    """Return the BTF of the running kernel."""
    return Path("/sys/kernel/btf/vmlinux").read_bytes()


def has_kprobes() -> bool:
    """Return whether the kernel was built with kprobes."""
    return Path("/sys/bus/event_source/devices/kprobe").exists()


@cache
def has_fentry() -> bool:
    """Return whether fentry must load.

    It needs ftrace's direct calls. A kernel that was built without kprobes may refuse it for
    other reasons, so there it is no must.
    """
    return has_kprobes() and " register_ftrace_direct\n" in Path("/proc/kallsyms").read_text()


def has_tracepoint(name: str) -> bool:
    """Return whether the kernel has a tracepoint for BTF programs."""
    return f"\0btf_trace_{name}\0".encode() in types()


def message_hooks() -> list[str]:
    """Return the hooks that must load for sends and receives."""
    loads = {
        "fentry": has_fentry(),
        "kprobe": has_kprobes(),
        "tracepoint": has_tracepoint("sock_send_length"),  # 6.3 and later
    }
    return [hook for hook in ALL if loads[hook]]


def segment_hooks() -> list[str]:
    """Return the hooks that must load for segments; `tracepoint` stands for cgroup_skb there."""
    loads = {"fentry": has_fentry(), "kprobe": has_kprobes(), "tracepoint": True}
    return [hook for hook in ALL if loads[hook]]


def cgroups_see_ipv6_handshakes() -> bool:
    """Return whether cgroup_skb is run for the SYN-ACKs of IPv6: 5.10 and 6.1 leave them out.

    They also lack the tracepoint that is asked for here; no kernel that we know has just one.
    """
    return has_tracepoint("sock_send_length")


def packets_have_process() -> bool:
    """Return whether cgroup_skb may ask whose process is running: 5.10 and 6.1 forbid it.

    They also lack the tracepoint that is asked for here; no kernel that we know has just one.
    """
    return has_tracepoint("sock_send_length")


def has_drop_reasons() -> bool:
    """Return whether the kernel says why it drops a packet (5.17 and later)."""
    return b"\0SKB_DROP_REASON_NOT_SPECIFIED\0" in types()


def has_reason(name: str) -> bool:
    """Return whether the kernel has a reason to drop of this name."""
    return f"\0SKB_DROP_REASON_{name}\0".encode() in types()


def drops_have_socket() -> bool:
    """Return whether the kernel tells whose a dropped segment was (6.11, with this function)."""
    return b"\0sk_skb_reason_drop\0" in types()


def has_reset_reasons() -> bool:
    """Return whether the kernel tells of resets without a socket, and why it sends one (6.10)."""
    return b"\0SK_RST_REASON_NOT_SPECIFIED\0" in types()


def has_socket_storage() -> bool:
    """Return whether the kernel keeps a tracing program's notes at the socket (5.11 and later)."""
    return b"\0BPF_FUNC_get_current_task_btf\0" in types()


def has_mptcp() -> bool:
    """Return whether the kernel was built with MPTCP; Debian's 5.10 was not."""
    return Path("/proc/sys/net/mptcp").exists()
