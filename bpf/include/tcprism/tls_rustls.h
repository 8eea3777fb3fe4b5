/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* What rustls hands to its ciphers, read from its structs. */
#ifndef TCPRISM_TLS_RUSTLS_H
#define TCPRISM_TLS_RUSTLS_H

#include "tcprism/tls_message.h"

#define RUSTLS_WORDS 5
#define PLAINTEXT_MAX (1 << 14) /* RFC 8446, 5.1 */
#define OVERHEAD_MAX 256	/* of a record: a nonce, a type, a tag, padding */
#define POINTER_MIN 0x10000	/* vm.mmap_min_addr; no length is that large */
#define RUSTLS_ERRORS 0x14	/* all of 0.23.0, of which a record can cause but the first 17, or 18 with one that came later */
#define NONCE 8			/* bytes before the ciphertext of AES-GCM in TLS 1.2 (RFC 5288, 3) */

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

/* Since 0.23: a message that borrows its bytes from what was received, then typ and version. */
INLINE bool rustls_borrowed(const u64 *words, struct rustls_bytes *to)
{
	to->at = words[0];
	to->length = to->capacity = words[1];
	to->type = rustls_type(words[2]);
	return words[0] >= POINTER_MIN && words[1] <= PLAINTEXT_MAX + OVERHEAD_MAX && to->type >= 0;
}

/* Since 0.23: a Result with a message, before which a byte numbers the errors, of which Ok is none. */
INLINE bool rustls_ok(u64 address, u64 *words)
{
	return !bpf_probe_read_user(words, RUSTLS_WORDS * sizeof(*words), (void *)address) && (u8)words[0] >= RUSTLS_ERRORS;
}

/* Such a Result of encryption: the message's Vec has room for the record's header, and is not filled yet. */
INLINE bool rustls_outbound(u64 address, struct rustls_bytes *to)
{
	u64 words[RUSTLS_WORDS] = {};

	if (!rustls_ok(address, words) || !rustls_owned(words + 1, to) || to->length < RECORD_HEADER)
		return false;
	to->at += RECORD_HEADER;
	to->length -= RECORD_HEADER;
	return true;
}

/* Such a Result of decryption, in place, behind a nonce where the record has one. */
INLINE bool rustls_inbound(u64 address, struct rustls_bytes *to)
{
	u64 words[RUSTLS_WORDS] = {};

	return rustls_ok(address, words) && rustls_borrowed(words + 1, to);
}

/*
 * Since 0.23: a message to encrypt, with an enum of its bytes, then typ and version. The enum is a slice of slices, which
 * are laid out as an iovec, and the begin and end in these; or, behind a null, one slice.
 */
INLINE bool rustls_chunks(const u64 *words, struct tls_call *call, int *type)
{
	bool single = !words[0];
	u64 begin = single ? 0 : words[2], end = single ? words[2] : words[3];

	*type = rustls_type(words[4]);
	if (*type < 0 || begin > end || end - begin > PLAINTEXT_MAX || end > REQUESTED_UNKNOWN)
		return false;
	call->buffer = single ? words[1] : words[0];
	call->requested = end - begin;
	call->segments = single ? 0 : words[1];
	call->offset = begin;
	return single || (words[0] >= POINTER_MIN && words[1] && words[1] < POINTER_MIN);
}

/*
 * Whether what is there was decrypted there: in TLS 1.3, its type is behind it (RFC 8446, 5.2); before, a record has
 * beside it but the tag and perhaps a nonce, over which ring moves it. An error may leave the Result of an earlier record.
 */
INLINE bool rustls_in_place(const struct tls_call *call, const struct rustls_bytes *plain)
{
	u64 before = plain->at - call->buffer, added = (u64)call->requested - plain->length;
	u8 type = 0;

	if (before)
		return before == NONCE && added == NONCE + TAG;
	if (added == TAG || added == NONCE + TAG)
		return true;
	return plain->length + TAG < call->requested &&
	       !bpf_probe_read_user(&type, sizeof(type), (void *)(plain->at + plain->length)) && type == RECORD_DATA;
}

/* Copies the chunks of a message into our memory, one behind the other; 1: they cannot be read. */
INLINE struct gathering *rustls_gather(struct tls_call *call)
{
	struct buffer chunks = {
		.base = call->buffer, .segments = call->segments, .offset = call->offset, .shape = BUFFER_USER_IOVEC
	};
	u32 want = MIN(call->requested, config.payload_limit);
	struct gathering *gathering = gather(&chunks, want);

	call->buffer = gathering && gathering->bytes >= want ? (u64)gathering->payload : 1;
	return gathering;
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
	call->segments = 0;
	call->has_inner = false;
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
