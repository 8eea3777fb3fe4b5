/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * tls_send and tls_recv of rustls 0.20 to 0.22: what its MessageEncrypter encrypts, its MessageDecrypter decrypts, one
 * record a call. They are called through tables, so that no compiler merges them with others. Rust fixes neither the
 * order of fields nor that of versions, so all that is read here must agree with itself, and with a record of a socket:
 * else nothing is shown.
 */
#include "tcprism/tls_message.h"

#define RUSTLS_WORDS 5
#define PLAINTEXT_MAX (1 << 14) /* RFC 8446, 5.1 */
#define OVERHEAD_MAX 256	/* of a record: a nonce, a type, a tag, padding */
#define POINTER_MIN 0x10000	/* vm.mmap_min_addr; no length is that large */

/* enum ContentType and ProtocolVersion number their names in this order. */
enum { RUSTLS_CHANGE_CIPHER_SPEC, RUSTLS_ALERT, RUSTLS_HANDSHAKE, RUSTLS_DATA };
enum { RUSTLS_TLS_1_2 = 4, RUSTLS_TLS_1_3 = 5 };

INLINE bool is_rustls_version(u32 version)
{
	return version == RUSTLS_TLS_1_2 || version == RUSTLS_TLS_1_3;
}

/* typ and version of a message, in one word, in either order: no word is both. Returns a type, or -1 where it has none. */
INLINE int rustls_type(u64 word)
{
	u32 type = is_rustls_version(word & 0xffff)	  ? word >> 32 & 0xff :
		   is_rustls_version(word >> 16 & 0xffff) ? word & 0xff : RUSTLS_DATA + 1;

	return type <= RUSTLS_DATA ? (int)type : -1;
}

struct rustls_bytes {
	u64 at;
	u32 length, capacity;
	int type;
};

/* A message that owns its bytes: a Vec, whose pointer and capacity come in either order, then typ and version. */
INLINE bool rustls_owned(const u64 *words, struct rustls_bytes *to)
{
	bool first = words[0] >= POINTER_MIN;
	u64 capacity = first ? words[1] : words[0];

	to->at = first ? words[0] : words[1];
	to->length = words[2];
	to->capacity = capacity;
	to->type = rustls_type(words[3]);
	return to->at >= POINTER_MIN && words[2] <= capacity && capacity <= PLAINTEXT_MAX + 2 * OVERHEAD_MAX &&
	       to->type >= 0;
}

/* A Result with such a message: 0 for Ok before it, or no more than the message. */
INLINE bool rustls_result(u64 address, struct rustls_bytes *to)
{
	u64 words[RUSTLS_WORDS] = {};

	if (bpf_probe_read_user(words, sizeof(words), (void *)address))
		return false;
	return rustls_owned(words[0] ? words : words + 1, to);
}

/* A call, of which it is not known yet what it moves. */
INLINE struct tls_call *rustls_enter(const struct pt_regs *ctx, struct thread *thread)
{
	struct tls_call *call;

	read_thread(thread);
	if (!task_passes(thread->pid))
		return NULL;
	call = tls_call_create(thread);
	if (!call)
		return NULL;
	if (is_inside(ctx, call)) {
		call->depth++;
		return NULL;
	}
	call->kind = TLS_OTHER;
	call->session = ctx->si;
	call->sp = ctx->sp;
	call->moved_at = ctx->cx; /* the record's number */
	call->depth = 0;
	call->carried = 0;
	call->start_ns = bpf_ktime_get_ns();
	return call;
}

/* A message that cannot be shown. */
INLINE void count_unproven(u32 kind)
{
	struct counters *counters = counters_of(kind);

	if (!counters || !kind_wanted(kind))
		return;
	COUNT(counters->seen, 1);
	COUNT(counters->map_full, 1);
}

/* fn encrypt(&self, BorrowedPlainMessage, seq: u64) -> Result<OpaqueMessage, Error>, which is written to what DI has */
SEC("uprobe") int tls_rustls_encrypt(struct pt_regs *ctx)
{
	u64 words[3] = {};
	struct thread thread;
	struct tls_call *call = rustls_enter(ctx, &thread);
	int type;

	if (!call)
		return 0;
	type = bpf_probe_read_user(words, sizeof(words), (void *)ctx->dx) ? -1 : rustls_type(words[2]);
	if (type < 0 || words[1] > PLAINTEXT_MAX) {
		count_unproven(KIND_TLS_SEND);
		return 0;
	}
	call->buffer = words[0];
	call->requested = words[1];
	call->carried = true;
	if (type == RUSTLS_DATA)
		call->kind = KIND_TLS_SEND;
	return 0;
}

#define WAITING_SLOTS 64

/* A message that waits for its record to be sent, with its plaintext. Like a lane, it admits one program at a time. */
struct tls_waiting {
	u32 writers;
	u32 number; /* of those that wait for this cipher */
	struct tls_session_key key;
	struct tls_caller caller;
	struct tls_call call;
	u32 at, size; /* of its record */
	u32 waits;
	u32 reserved;
	u8 payload[PAYLOAD_MAX];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct tls_waiting);
} tls_waiting SEC(".maps");

INLINE u32 waiting_slot(u64 object, u32 number)
{
	return ((u32)((object * 0x9e3779b97f4a7c15ULL) >> 40) + number) & (WAITING_SLOTS - 1);
}

INLINE void waiting_leave(struct tls_waiting *slot)
{
	barrier();
	__atomic_fetch_add(&slot->writers, -1, __ATOMIC_RELAXED);
}

INLINE struct tls_waiting *waiting_enter(u64 object, u32 number)
{
	u32 index = waiting_slot(object, number);
	struct tls_waiting *slot = bpf_map_lookup_elem(&tls_waiting, &index);

	if (!slot)
		return NULL;
	__atomic_fetch_add(&slot->writers, 1, __ATOMIC_RELAXED);
	if (READ_ONCE(slot->writers) == 1)
		return slot;
	waiting_leave(slot);
	return NULL;
}

/* A message has to wait until it is known which socket sends it. */
INLINE void rustls_wait(const struct tls_session_key *key, struct tls_cipher *cipher, const struct tls_call *call,
			u32 at, u32 size)
{
	struct tls_waiting *slot = cipher->waiting < WAITING_MAX ? waiting_enter(key->session, cipher->waiting) : NULL;
	u32 length = MIN(call->requested, config.payload_limit);

	if (!slot) {
		cipher->whole = false;
		count_unproven(KIND_TLS_SEND);
		return;
	}
	if (slot->waits)
		count_unproven(KIND_TLS_SEND);
	slot->key = *key;
	slot->number = cipher->waiting++;
	slot->call = *call;
	slot->at = at;
	slot->size = size;
	slot->waits = true;
	barrier_var(length);
	if (length > PAYLOAD_MAX)
		length = PAYLOAD_MAX;
	slot->call.buffer = bpf_probe_read_user(slot->payload, length, (void *)call->buffer) ? 0 : 1;
	waiting_leave(slot);
}

const struct tls_caller tls_caller_new = {};

/* A record of a cipher with a socket becomes what the session's stream has moved. Returns whether there is such a session. */
INLINE bool rustls_moves(const struct tls_cipher *cipher, u32 pid, u32 direction, u32 at, u32 size)
{
	struct tls_session_key key = { .session = cipher->socket, .pid = pid };
	struct tls_session *session = bpf_map_lookup_elem(&tls_sessions, &key);
	struct tls_stream *stream;

	if (!session)
		return false;
	stream = &session->streams[direction];
	stream->begin = cipher->base + at;
	stream->whole = stream->next = stream->begin + size;
	stream->known = cipher->placed;
	stream->from_hello = cipher->whole && (stream->from_hello || !stream->begun);
	stream->begun = true;
	return true;
}

/*
 * To show what has waited takes three global functions, each of which the verifier checks once. They take only numbers,
 * and keep what is large in the slot: programs of TCP leave them little stack.
 */
__noinline int tls_submit_slot(u32 index)
{
	struct tls_waiting *slot = bpf_map_lookup_elem(&tls_waiting, &index);
	struct counters *counters = counters_of(KIND_TLS_SEND);

	if (slot && counters)
		tls_submit(&slot->caller, &slot->call, counters, true);
	return 0;
}

/* Returns whether a slot has a message that is to be shown. */
__noinline int tls_slot_wanted(u64 object, u32 pid, u32 number, u32 index)
{
	struct tls_session_key key = { .session = object, .pid = pid };
	struct tls_cipher *cipher = bpf_map_lookup_elem(&tls_ciphers, &key);
	struct tls_waiting *slot = bpf_map_lookup_elem(&tls_waiting, &index);
	struct counters *counters = counters_of(KIND_TLS_SEND);
	struct thread thread;

	if (!slot || !cipher || !counters || !slot->waits || slot->number != number || slot->key.session != object ||
	    slot->key.pid != pid || !rustls_moves(cipher, pid, 0, slot->at, slot->size))
		return 0;
	slot->waits = false;
	slot->call.session = cipher->socket;
	if (slot->call.buffer)
		slot->call.buffer = (u64)slot->payload;
	slot->caller = tls_caller_new;
	slot->caller.bytes = slot->call.requested;
	slot->caller.pid = pid;
	read_thread(&thread);
	return tls_wanted(&slot->caller, &thread, &slot->call, counters);
}

__noinline int tls_show_waiting(u64 sk)
{
	struct tls_session_key *key = bpf_map_lookup_elem(&tls_sessions_by_socket, &sk);
	struct tls_cipher *cipher = key ? bpf_map_lookup_elem(&tls_ciphers, key) : NULL;
	u32 count;

	if (!cipher)
		return 0;
	count = cipher->waiting;
	cipher->waiting = 0;
	for (u32 i = 0; i < WAITING_MAX && i < count; i++) {
		struct tls_waiting *slot = waiting_enter(key->session, i);
		u32 index = waiting_slot(key->session, i);

		if (!slot)
			continue;
		if (tls_slot_wanted(key->session, key->pid, i, index))
			tls_submit_slot(index);
		waiting_leave(slot);
	}
	return 0;
}

INLINE void rustls_sealed(const struct thread *thread, struct tls_call *call, const struct rustls_bytes *sealed)
{
	struct tls_session_key key = { .session = call->session, .pid = thread->pid };
	struct tls_cipher *cipher = tls_cipher_of(&key, call->moved_at);
	struct tls_sealed record = { .key = key, .size = RECORD_HEADER + sealed->length };
	u64 hash;

	if (!cipher)
		return;
	record.at = cipher->at;
	record.since_ns = cipher->since_ns;
	cipher->at += record.size;
	cipher->next++;
	if (cipher->has_socket) {
		if (call->kind != KIND_TLS_SEND)
			return;
		if (!rustls_moves(cipher, thread->pid, 0, record.at, record.size)) {
			cipher->has_socket = cipher->whole = false;
			count_unproven(KIND_TLS_SEND);
			return;
		}
		call->session = cipher->socket;
		tls_record(thread, call, call->requested);
		return;
	}
	if (call->kind == KIND_TLS_SEND && kind_wanted(KIND_TLS_SEND))
		rustls_wait(&key, cipher, call, record.at, record.size);
	hash = record_fingerprint(sealed->at, sealed->length);
	if (hash)
		bpf_map_update_elem(&tls_sealed, &hash, &record, 0);
	WRITE_ONCE(tls_sealed_ns, bpf_ktime_get_ns());
}

SEC("uretprobe") int tls_rustls_encrypted(struct pt_regs *ctx)
{
	struct rustls_bytes sealed;
	struct thread thread;
	struct tls_call *call = tls_ending(&thread);

	if (!call)
		return 0;
	if (call->carried && rustls_result(ctx->ax, &sealed) && sealed.length >= call->requested + TAG &&
	    sealed.length <= call->requested + OVERHEAD_MAX)
		rustls_sealed(&thread, call, &sealed);
	call->kind = TLS_NO_CALL;
	return 0;
}

/* A cipher opens its next record: where a socket has received it, or behind the one before. */
INLINE void rustls_opens(const struct tls_session_key *key, struct tls_call *call, const struct rustls_bytes *sealed)
{
	struct tls_cipher *cipher = tls_cipher_of(key, call->moved_at);
	u64 hash = record_fingerprint(sealed->at, sealed->length);
	struct tls_received *found = hash ? bpf_map_lookup_elem(&tls_received, &hash) : NULL;
	u32 size = RECORD_HEADER + sealed->length;

	if (!cipher)
		return;
	if (found && found->socket && found->size == size && tls_session_of_socket(found->socket, key->pid, found->sk, &found->connection))
		tls_cipher_placed(cipher, found->socket, cipher->at, found->seq, true);
	call->reading_from = cipher->at;
	call->carried = size;
	cipher->at += size;
	cipher->next++;
}

/* fn decrypt(&self, OpaqueMessage, seq: u64) -> Result<PlainMessage, Error>, in place */
SEC("uprobe") int tls_rustls_decrypt(struct pt_regs *ctx)
{
	struct tls_session_key key = { .session = ctx->si };
	struct rustls_bytes sealed;
	struct thread thread;
	struct tls_call *call = rustls_enter(ctx, &thread);
	u64 words[4] = {};

	if (!call)
		return 0;
	if (bpf_probe_read_user(words, sizeof(words), (void *)ctx->dx) || !rustls_owned(words, &sealed)) {
		count_unproven(KIND_TLS_RECV);
		return 0;
	}
	key.pid = thread.pid;
	call->buffer = sealed.at;
	call->requested = sealed.length;
	call->kind = KIND_TLS_RECV;
	rustls_opens(&key, call, &sealed);
	return 0;
}

INLINE void rustls_opened(const struct thread *thread, struct tls_call *call, const struct rustls_bytes *plain)
{
	struct tls_session_key key = { .session = call->session, .pid = thread->pid };
	struct tls_cipher *cipher = bpf_map_lookup_elem(&tls_ciphers, &key);

	if (!cipher || plain->type != RUSTLS_DATA || !plain->length)
		return;
	if (!cipher->has_socket || !rustls_moves(cipher, thread->pid, 1, call->reading_from, call->carried)) {
		cipher->whole = false;
		count_unproven(KIND_TLS_RECV);
		return;
	}
	call->session = cipher->socket;
	tls_record(thread, call, plain->length);
}

SEC("uretprobe") int tls_rustls_decrypted(struct pt_regs *ctx)
{
	struct rustls_bytes plain;
	struct thread thread;
	struct tls_call *call = tls_ending(&thread);

	if (!call)
		return 0;
	if (call->carried && rustls_result(ctx->ax, &plain) && plain.at == call->buffer &&
	    plain.length + TAG <= call->requested && kind_wanted(KIND_TLS_RECV))
		rustls_opened(&thread, call, &plain);
	call->kind = TLS_NO_CALL;
	return 0;
}
