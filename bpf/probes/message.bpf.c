/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * A process calls into TCP: send and recv. Three ways to see the same call, best first: fentry and
 * fexit, kprobe and kretprobe, tracepoints. Each wrapper hands its call to the shared body.
 */
#include "tcprism/emit.h"
#include "tcprism/syscall.h"

/* What is known of the call that the current thread is inside. */
struct call {
	u64 start_ns; /* 0: unknown */
	u64 sk;       /* 0: nobody saw its entry */
	struct buffer buffer;
	u32 requested;
	u32 seq;
	u32 flags; /* the caller's MSG_ flags */
	u32 kind;
};

struct {
	MAP_UINT(type, MAP_TASK_STORAGE);
	MAP_UINT(map_flags, MAP_NO_PREALLOC);
	MAP_TYPE(key, int);
	MAP_TYPE(value, struct call);
} calls SEC(".maps");

/* Where there is no task storage: by thread. A thread is inside one call at a time. */
struct {
	MAP_UINT(type, MAP_LRU_HASH);
	MAP_UINT(max_entries, 16384);
	MAP_TYPE(key, u64);
	MAP_TYPE(value, struct call);
} calls_by_thread SEC(".maps");

INLINE struct call *current_call(u64 thread, bool create)
{
	struct call *call, empty = {};

	if (config.local_storage)
		return bpf_task_storage_get(&calls, bpf_get_current_task_btf(), NULL, create);
	call = bpf_map_lookup_elem(&calls_by_thread, &thread);
	if (call || !create)
		return call;
	bpf_map_update_elem(&calls_by_thread, &thread, &empty, 0);
	return bpf_map_lookup_elem(&calls_by_thread, &thread);
}

INLINE u32 sequence_of(struct sock *sk, u32 kind, enum reads reads)
{
	struct tcp_sock *tp = tcp_sock_of(sk, reads);
	u32 seq = 0;

	if (!tp)
		return 0;
	if (kind == KIND_SEND)
		READ(reads, seq, tp->write_seq);
	else
		READ(reads, seq, tp->copied_seq);
	return seq;
}

INLINE void call_open(struct call *call, struct sock *sk, u32 kind, u32 flags, u64 requested, enum reads reads)
{
	call->sk = (u64)sk;
	call->kind = kind;
	call->flags = flags;
	call->requested = MIN(requested, REQUESTED_UNKNOWN);
	call->seq = sequence_of(sk, kind, reads);
}

/* A read that ends with the peer's FIN takes the FIN's sequence number along. */
INLINE u32 taken_fin(struct sock *sk, u32 copied_seq, enum reads reads)
{
	unsigned long flags = 0;
	struct tcp_sock *tp;
	u32 rcv_nxt = 0;

	READ(reads, flags, sk->__sk_common.skc_flags);
	if (!(flags >> SOCK_DONE & 1))
		return 0;
	tp = tcp_sock_of(sk, reads);
	if (tp)
		READ(reads, rcv_nxt, tp->rcv_nxt);
	return copied_seq == rcv_nxt;
}

/* Exact where the sequence number moved by what this call moved: no other thread was in between. */
INLINE void set_sequence(struct message *m, const struct call *call, struct sock *sk, enum reads reads)
{
	struct event *event = &m->event;
	u32 now = sequence_of(sk, event->kind, reads);
	u32 fin = event->kind == KIND_RECV ? taken_fin(sk, now, reads) : 0;
	u32 moved = event->flags & MESSAGE_PEEK ? 0 : event->bytes;

	event->seq = call->sk ? call->seq : now - moved - fin;
	if (!now || (now - event->seq != moved && now - event->seq != moved + fin))
		event->flags |= MESSAGE_SEQ_UNKNOWN;
}

#define EMIT_CLASS(size)                                                                           \
	if (want <= size) {                                                                        \
		struct message_##size {                                                            \
			struct message message;                                                    \
			u8 payload[size];                                                          \
		};                                                                                 \
		SUBMIT(message_##size, struct message_##size, counters, {                          \
			u32 length = want;                                                         \
			asm volatile("" : "+r"(length));                                           \
			if (length > size)                                                         \
				length = size;                                                     \
			if (gathered)                                                              \
				bpf_probe_read_kernel(record->payload, length, gathered->bytes);   \
			else if (bpf_probe_read_user(record->payload, length, (void *)(call->buffer.base + call->buffer.offset))) \
				set_payload(m, 0, PAYLOAD_FAULT);                                  \
			record->message = *m;                                                      \
		});                                                                                \
		return;                                                                            \
	}

INLINE void set_payload(struct message *m, u32 length, u32 reason)
{
	m->payload_length = length;
	m->payload_unavailable = reason;
}

/* How much payload this message gets; an iovec's segments are gathered on the way. */
INLINE u32 choose_payload(struct message *m, const struct call *call, struct gathered **gathered)
{
	const struct buffer *buffer = &call->buffer;
	u32 direction = m->event.kind;
	u32 want = MIN(m->event.bytes, config.payload_limit);
	struct gathering *state;

	if (buffer->shape == BUFFER_NONE) {
		set_payload(m, 0, want ? buffer->unavailable : PAYLOAD_AVAILABLE);
		return 0;
	}
	if (buffer->shape != BUFFER_FLAT) {
		*gathered = bpf_map_lookup_elem(&gathered_bytes, &direction);
		state = bpf_map_lookup_elem(&gathering, &direction);
		if (!*gathered || !state)
			return 0;
		gather(state, direction, buffer, want);
		want = MIN(want, state->bytes);
		if (m->requested == REQUESTED_UNKNOWN)
			m->requested = state->requested;
	}
	set_payload(m, want, want || !m->event.bytes || !config.payload_limit ? PAYLOAD_AVAILABLE : PAYLOAD_FAULT);
	return want;
}

/* Into the ring of the smallest payload class that holds it. */
INLINE void message_submit(struct message *m, const struct call *call, struct counters *counters)
{
	struct gathered *gathered = NULL;
	u32 want = choose_payload(m, call, &gathered);

	if (config.payload_limit)
		COUNT(counters->payload_cut, m->event.bytes - want);
	if (!want) {
		SUBMIT(message_0, struct message, counters, *record = *m);
		return;
	}
	PAYLOAD_CLASSES(EMIT_CLASS)
}

INLINE u32 message_flags(u32 kind, u32 flags)
{
	if (kind == KIND_SEND)
		return flags & MSG_ZEROCOPY ? MESSAGE_ZEROCOPY : 0;
	return flags & MSG_PEEK ? MESSAGE_PEEK : 0;
}

/* Calls that moved nothing and will be made again, and reads of the error queue, are no messages. */
INLINE bool is_message(u32 kind, int result, u32 flags)
{
	if (result == -EAGAIN || (result <= -ERESTARTSYS && result >= -ERESTART_LAST))
		return false;
	return kind == KIND_SEND || !(flags & MSG_ERRQUEUE);
}

INLINE bool is_tcp(struct sock *sk, enum reads reads)
{
	u16 protocol = 0, type = 0;

	READ(reads, protocol, sk->sk_protocol);
	READ(reads, type, sk->sk_type);
	return protocol == IPPROTO_TCP && type == SOCK_STREAM;
}

INLINE void message_build(struct message *m, const struct call *call, struct sock *sk, int result, enum reads reads)
{
	m->event.socket = cookie_of(sk, reads);
	m->event.bytes = result > 0 ? result : 0;
	m->event.error = result < 0 ? result : 0;
	m->event.flags = message_flags(m->event.kind, call->flags);
	m->requested = call->requested;
	m->duration_ns = call->start_ns ? m->event.ts_ns - call->start_ns : DURATION_UNKNOWN;
	set_sequence(m, call, sk, reads);
}

/* The thread that is in the call, and what passed the filters. */
struct caller {
	u64 thread;
	struct counters *counters;
	struct connection connection;
	struct owner current;
};

/* At the entry of a call, before it counts: the same filters as at its end, or its memory would outlive it. */
INLINE bool call_wanted(struct sock *sk, u64 thread, u32 kind, enum reads reads)
{
	struct connection connection;

	if (!kind_wanted(kind) || !socket_ports_pass(&sk->__sk_common, reads) || !task_passes(HIGH32(thread)))
		return false;
	if (!FILTERS_BY_CONNECTION())
		return true;
	read_connection(&connection, &sk->__sk_common, reads);
	return connection_passes(&connection);
}

/* Cheapest questions first; who passes them all becomes the socket's owner. */
INLINE bool caller_passes(struct caller *caller, struct sock *sk, enum reads reads)
{
	if (!socket_ports_pass(&sk->__sk_common, reads))
		return false;
	if (!task_passes(HIGH32(caller->thread))) {
		if (config.track_owner)
			owner_turn_away(sk, caller->thread, reads);
		return false;
	}
	read_connection(&caller->connection, &sk->__sk_common, reads);
	if (!connection_passes(&caller->connection))
		return false;
	read_current(&caller->current, caller->thread, true);
	if (config.track_owner)
		owner_remember(sk, &caller->current, reads);
	return true;
}

/* A call returned: count it, filter it; true: it is to be recorded. */
INLINE bool message_admit(struct caller *caller, struct sock *sk, u32 kind, enum reads reads)
{
	bool wanted = kind_wanted(kind), passes;

	caller->thread = bpf_get_current_pid_tgid();
	caller->counters = counters_of(kind);
	if (!caller->counters)
		return false;
	if (wanted)
		COUNT(caller->counters->seen, 1);
	passes = caller_passes(caller, sk, reads);
	if (wanted && !passes)
		COUNT(caller->counters->filtered, 1);
	return wanted && passes;
}

INLINE void message_record(const struct caller *caller, const struct call *call, struct sock *sk, u32 kind, int result,
			   enum reads reads)
{
	struct message m = {};

	event_begin(&m.event, kind, &caller->connection, &caller->current);
	message_build(&m, call, sk, result, reads);
	message_submit(&m, call, caller->counters);
}

/* Of a call whose entry nobody saw: it had begun before the start, or the hook fires at its end alone. */
INLINE void call_unseen(struct call *call, u32 flags)
{
	call->start_ns = 0;
	call->sk = 0;
	call->requested = REQUESTED_UNKNOWN;
	call->flags = flags;
	buffer_none(&call->buffer, PAYLOAD_SYSCALL);
}

/* fentry and kprobe: the entry has the iterator before it moves, and the time. */
INLINE void call_enter(struct sock *sk, const struct msghdr *msg, u64 size, u32 flags, u32 kind, enum reads reads)
{
	u64 thread = bpf_get_current_pid_tgid();
	struct call *call = call_wanted(sk, thread, kind, reads) ? current_call(thread, true) : NULL;

	if (!call)
		return;
	call_open(call, sk, kind, flags, size, reads);
	if (!msg)
		buffer_none(&call->buffer, PAYLOAD_SPLICED);
	else if (kind == KIND_RECV && flags & MSG_TRUNC)
		buffer_none(&call->buffer, PAYLOAD_DISCARDED);
	else
		buffer_from_iter(&call->buffer, &msg->msg_iter, reads);
	call->start_ns = bpf_ktime_get_ns();
}

INLINE void call_leave(struct sock *sk, int result, u32 kind, u32 flags, enum reads reads)
{
	struct caller caller;
	struct call *call;

	if (!is_message(kind, result, flags) || !message_admit(&caller, sk, kind, reads))
		return;
	call = current_call(caller.thread, true);
	if (!call) {
		COUNT(caller.counters->map_full, 1);
		return;
	}
	if (call->kind != kind || call->sk != (u64)sk)
		call_unseen(call, flags);
	message_record(&caller, call, sk, kind, result, reads);
	call->sk = 0;
}

INLINE u32 send_flags(const struct msghdr *msg, enum reads reads)
{
	u32 flags = 0;

	READ(reads, flags, msg->msg_flags);
	return flags;
}

SEC("fentry/tcp_sendmsg") int fentry_send(u64 *ctx)
{
	struct msghdr *msg = (void *)ctx[1];

	call_enter((void *)ctx[0], msg, ctx[2], send_flags(msg, READS_BTF), KIND_SEND, READS_BTF);
	return 0;
}

SEC("fexit/tcp_sendmsg") int fexit_send(u64 *ctx)
{
	call_leave((void *)ctx[0], ctx[3], KIND_SEND, 0, READS_BTF);
	return 0;
}

/* sendfile before 6.5 (dc97391e6610 removed it): one page a call, no user buffer. */
SEC("fentry/tcp_sendpage") int fentry_sendpage(u64 *ctx)
{
	call_enter((void *)ctx[0], NULL, ctx[3], 0, KIND_SEND, READS_BTF);
	return 0;
}

SEC("fexit/tcp_sendpage") int fexit_sendpage(u64 *ctx)
{
	call_leave((void *)ctx[0], ctx[5], KIND_SEND, 0, READS_BTF);
	return 0;
}

/* tcp_recvmsg lost `nonblock` in 5.19 (ec095263a965) and `addr_len` in 7.x: the result moved each time. */
SEC("fentry/tcp_recvmsg") int fentry_recv(u64 *ctx)
{
	u32 flags = config.recvmsg_arguments == 6 ? SLOT(ctx, 4) : SLOT(ctx, 3);

	call_enter((void *)ctx[0], (void *)ctx[1], ctx[2], flags, KIND_RECV, READS_BTF);
	return 0;
}

SEC("fexit/tcp_recvmsg") int fexit_recv(u64 *ctx)
{
	u32 flags = config.recvmsg_arguments == 6 ? SLOT(ctx, 4) : SLOT(ctx, 3);
	int result;

	if (config.recvmsg_arguments == 6)
		result = SLOT(ctx, 6);
	else if (config.recvmsg_arguments == 5)
		result = SLOT(ctx, 5);
	else
		result = SLOT(ctx, 4);
	call_leave((void *)ctx[0], result, KIND_RECV, flags, READS_BTF);
	return 0;
}

/* A kretprobe has no arguments: the socket comes from the entry. */
INLINE void kretprobe_leave(const struct pt_regs *ctx, u32 kind)
{
	struct call *call = current_call(bpf_get_current_pid_tgid(), false);

	if (call && call->sk)
		call_leave((void *)call->sk, ctx->ax, kind, call->flags, READS_PROBED);
}

SEC("kprobe/tcp_sendmsg") int kprobe_send(struct pt_regs *ctx)
{
	struct msghdr *msg = (void *)ctx->si;

	call_enter((void *)ctx->di, msg, ctx->dx, send_flags(msg, READS_PROBED), KIND_SEND, READS_PROBED);
	return 0;
}

SEC("kretprobe/tcp_sendmsg") int kretprobe_send(struct pt_regs *ctx)
{
	kretprobe_leave(ctx, KIND_SEND);
	return 0;
}

SEC("kprobe/tcp_sendpage") int kprobe_sendpage(struct pt_regs *ctx)
{
	call_enter((void *)ctx->di, NULL, ctx->cx, 0, KIND_SEND, READS_PROBED);
	return 0;
}

SEC("kretprobe/tcp_sendpage") int kretprobe_sendpage(struct pt_regs *ctx)
{
	kretprobe_leave(ctx, KIND_SEND);
	return 0;
}

SEC("kprobe/tcp_recvmsg") int kprobe_recv(struct pt_regs *ctx)
{
	u64 fourth = ctx->cx, fifth = ctx->r8;

	asm volatile("" : "+r"(fourth), "+r"(fifth)); /* two loads at constant offsets, then a choice */
	call_enter((void *)ctx->di, (void *)ctx->si, ctx->dx, config.recvmsg_arguments == 6 ? fifth : fourth, KIND_RECV,
		   READS_PROBED);
	return 0;
}

SEC("kretprobe/tcp_recvmsg") int kretprobe_recv(struct pt_regs *ctx)
{
	kretprobe_leave(ctx, KIND_RECV);
	return 0;
}

/*
 * Tracepoints. sock_send_length and sock_recv_length (6.3+) fire as the call returns, with its
 * result alone. tcp_sendmsg_locked (6.16+) has the iterator; older kernels' sends and all receives
 * read the system call's registers.
 */
SEC("tp_btf/tcp_sendmsg_locked") int tracepoint_send_buffer(u64 *ctx)
{
	struct sock *sk = (void *)ctx[0];
	const struct msghdr *msg = (void *)ctx[1];
	u64 thread = bpf_get_current_pid_tgid();
	struct call *call = call_wanted(sk, thread, KIND_SEND, READS_BTF) ? current_call(thread, true) : NULL;

	if (!call || call->sk == (u64)sk) /* the loop inside one call comes round again */
		return 0;
	call_open(call, sk, KIND_SEND, msg->msg_flags, msg->msg_iter.count, READS_BTF);
	call->start_ns = 0; /* the call began earlier */
	buffer_from_iter(&call->buffer, &msg->msg_iter, READS_BTF);
	return 0;
}

/* The call that returns: filled and used within one run of one program. */
PER_DIRECTION(ending_calls, struct call);

INLINE void find_buffer(struct call *call, int result, u32 flags, u32 kind)
{
	call_unseen(call, flags);
	buffer_from_syscall(&call->buffer, &call->requested, result < 0);
	if (kind == KIND_RECV && flags & MSG_TRUNC)
		buffer_none(&call->buffer, PAYLOAD_DISCARDED);
}

/* A send that took only a part ends a sendmmsg, as an error does. */
INLINE void end_partial_batch(int result)
{
	u32 direction = KIND_SEND;
	struct gathering *state = bpf_map_lookup_elem(&gathering, &direction);

	if (state && (u32)result < state->requested)
		batch_end();
}

INLINE bool is_traced(struct sock *sk, u32 kind)
{
	return sk && (kind_wanted(kind) || config.track_owner) && is_tcp(sk, READS_BTF);
}

SEC("tp_btf/sock_recv_length") int tracepoint_recv(u64 *ctx)
{
	struct sock *sk = (void *)ctx[0];
	int result = ctx[1];
	u32 flags = ctx[2], kind = KIND_RECV;
	struct caller caller;
	struct call *call;

	if (!is_traced(sk, KIND_RECV))
		return 0;
	if (!is_message(KIND_RECV, result, flags)) {
		batch_end();
		return 0;
	}
	if (!message_admit(&caller, sk, KIND_RECV, READS_BTF))
		return 0;
	call = bpf_map_lookup_elem(&ending_calls, &kind);
	if (!call)
		return 0;
	find_buffer(call, result, flags, kind);
	message_record(&caller, call, sk, kind, result, READS_BTF);
	return 0;
}

/* A send that blocks no more, or is made again, has left what its entry knew. */
INLINE void send_abandoned(void)
{
	struct call *call = current_call(bpf_get_current_pid_tgid(), false);

	if (call)
		call->sk = 0;
	batch_end();
}

SEC("tp_btf/sock_send_length") int tracepoint_send(u64 *ctx)
{
	struct sock *sk = (void *)ctx[0];
	struct call *call, *begun;
	int result = ctx[1];
	u32 kind = KIND_SEND;
	struct caller caller;

	if (!is_traced(sk, KIND_SEND))
		return 0;
	if (!is_message(KIND_SEND, result, 0)) {
		send_abandoned();
		return 0;
	}
	if (!message_admit(&caller, sk, KIND_SEND, READS_BTF))
		return 0;
	call = bpf_map_lookup_elem(&ending_calls, &kind);
	if (!call)
		return 0;
	begun = current_call(caller.thread, false);
	if (begun && begun->sk == (u64)sk) {
		*call = *begun;
		begun->sk = 0;
	} else {
		find_buffer(call, result, 0, kind);
	}
	message_record(&caller, call, sk, kind, result, READS_BTF);
	if (!call->sk && call->buffer.shape != BUFFER_FLAT)
		end_partial_batch(result);
	return 0;
}
