/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* What rustls hands to its ciphers, read from its structs. */
#ifndef TCPRISM_TLS_RUSTLS_H
#define TCPRISM_TLS_RUSTLS_H

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

#endif
