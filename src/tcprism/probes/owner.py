"""Which process owns a socket, and which is whose child (bpf/probes/owner.bpf.c)."""

from tcprism.probes import Program

# After all hooks are on, so that no socket is missed by both.
FIND_OWNERS = Program("iterate_owners", attach="iterator", order=2)
FOLLOW = (Program("tracepoint_fork"), Program("tracepoint_free"))
