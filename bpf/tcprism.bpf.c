/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* One object for every kernel: user space loads the programs that this kernel takes. */
#include "tcprism/events.h"
#include "probes/message_fentry.bpf.c"
#include "probes/message_kprobe.bpf.c"
#include "probes/message_buffer.bpf.c"
#include "probes/message_tracepoint.bpf.c"
#include "probes/segment.bpf.c"
#include "probes/segment_egress.bpf.c"
#include "probes/segment_ingress.bpf.c"
#include "probes/retransmit.bpf.c"
#include "probes/connection.bpf.c"
#include "probes/reset.bpf.c"
#include "probes/drop.bpf.c"
#include "probes/undo.bpf.c"
#include "probes/delivery.bpf.c"
#include "probes/owner.bpf.c"
#include "probes/pids.bpf.c"
#include "probes/snapshot.bpf.c"
#include "probes/tls.bpf.c"
#include "probes/tls_memory.bpf.c"
#include "probes/tls_go.bpf.c"
#include "probes/tls_nss.bpf.c"
#include "probes/tls_rustls_encrypt.bpf.c"
#include "probes/tls_rustls_decrypt.bpf.c"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

/* Never read: it puts the types that only user space names into BTF, where Python's are generated from. */
struct wire {
	enum event_kind kind;
	enum message_flag flag;
	enum payload_reason reason;
	enum owner_source owner_source;
	enum cause cause;
	enum segment_arrival segment_arrival;
	enum ending ending;
	enum socket_source socket_source;
	struct message message;
	struct delivery delivery;
	struct segment segment;
	struct loss loss;
	struct connection_event connection_event;
	struct snapshot snapshot;
	struct translation translation;
	struct tls_message tls_message;
};
const struct wire *const volatile wire = 0;
