/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * Bodies of HTTP/1 whose length their head has told (RFC 9112, 6.3): no parser wants to see the messages that continue
 * one, so their payload is not taken. Only a message of some size is looked at: to small ones this costs nothing. When
 * in doubt, all of it is taken.
 */
#ifndef TCPRISM_BODY_H
#define TCPRISM_BODY_H

#include "buffer.h"
#include "emit.h"

#define BODY_MESSAGE 4096 /* bytes: no less is looked at */
#define HEAD_MAX 1024
#define HEAD_LINES_MAX 32
#define DIGITS_MAX 9 /* below 1 GB, for sequence numbers come round */

struct body_key {
	u64 socket;
	u32 kind;
	u32 reserved;
};

/* The sequence number behind a body. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct body_key);
	__type(value, u32);
} bodies SEC(".maps");

/*
 * Whether a message may begin a body, or continue one, that is known by its socket's cookie. These are global
 * functions, which the verifier checks once, and of whose results it knows nothing.
 */
__noinline u32 is_large(u64 socket, u32 bytes, u32 flags)
{
	return bytes >= BODY_MESSAGE && socket && !(flags & (MESSAGE_SEQ_UNKNOWN | MESSAGE_PEEK));
}

/* How much payload a message needs: none that lies in a known body. */
__noinline u32 payload_needed(u64 socket, u32 kind, u32 seq, u32 bytes, u32 flags)
{
	struct body_key key = { .socket = socket, .kind = kind };
	u32 *end;

	if (!is_large(socket, bytes, flags))
		return config.payload_limit;
	end = bpf_map_lookup_elem(&bodies, &key);
	if (!end)
		return config.payload_limit;
	if (after(*end, seq) && !after(seq + bytes, *end))
		return 0;
	bpf_map_delete_elem(&bodies, &key);
	return config.payload_limit;
}

/* Returns the offset of the next line of a head in a gathering, or HEAD_MAX. */
__noinline u32 head_next_line(u32 gathering, u32 at)
{
	struct gathering *head = bpf_map_lookup_elem(&gatherings, &gathering);

	if (!head)
		return HEAD_MAX;
	for (u32 i = 0; i < HEAD_MAX && at < HEAD_MAX; i++) {
		barrier_var(at);
		if (at >= HEAD_MAX)
			break;
		if (head->payload[at++] == '\n')
			return at;
	}
	return HEAD_MAX;
}

enum head_line {
	HEAD_LINE_OTHER,
	HEAD_LINE_END,
	HEAD_LINE_LENGTH,
	HEAD_LINE_ENCODING,
};

INLINE bool line_begins(const u8 *line, const char *name, u32 length)
{
	for (u32 i = 0; i < length; i++) {
		if ((line[i] | 0x20) != name[i])
			return false;
	}
	return true;
}

__noinline u32 head_line_of(u32 gathering, u32 at)
{
	struct gathering *head = bpf_map_lookup_elem(&gatherings, &gathering);

	if (!head || at >= HEAD_MAX)
		return HEAD_LINE_ENCODING;
	if (head->payload[at] == '\r' && head->payload[at + 1] == '\n')
		return HEAD_LINE_END;
	if (line_begins(head->payload + at, "content-length:", 15))
		return HEAD_LINE_LENGTH;
	if (line_begins(head->payload + at, "transfer-encoding:", 18))
		return HEAD_LINE_ENCODING;
	return HEAD_LINE_OTHER;
}

/* Returns the number at an offset of a head, 0 if there is none of at most DIGITS_MAX digits. */
__noinline u32 head_number(u32 gathering, u32 at)
{
	struct gathering *head = bpf_map_lookup_elem(&gatherings, &gathering);
	u32 number = 0;

	if (!head)
		return 0;
	for (u32 i = 0; i <= DIGITS_MAX; i++, at++) {
		u32 digit;

		barrier_var(at);
		if (at >= HEAD_MAX)
			break;
		digit = head->payload[at] - '0';
		if (digit > 9)
			return head->payload[at] == '\r' ? number : 0;
		number = number * 10 + digit;
	}
	return 0;
}

/* Returns how many bytes a head and its body have, 0 if it does not say so. */
__noinline u32 head_and_body(u32 gathering)
{
	u32 at = head_next_line(gathering, 0), length = 0;

	for (u32 i = 0; i < HEAD_LINES_MAX; i++) {
		u32 line = head_line_of(gathering, at);

		if (line == HEAD_LINE_END)
			return length ? at + 2 + length : 0;
		if (line == HEAD_LINE_ENCODING)
			return 0;
		if (line == HEAD_LINE_LENGTH)
			length = head_number(gathering, at + sizeof("content-length: ") - 1);
		at = head_next_line(gathering, at);
	}
	return 0;
}

/* A response without a body may tell a length as well: to HEAD, and 304. Most requests have no body. */
INLINE bool may_have_body(const u8 *head)
{
	if (head[0] == 'H' && head[1] == 'T' && head[2] == 'T' && head[3] == 'P')
		return head[9] == '2' || head[9] == '4' || head[9] == '5';
	return head[0] == 'P' && (head[1] == 'O' || head[1] == 'U' || head[1] == 'A');
}

/* Takes note of a body that goes on behind a message, whose begin has been gathered. */
__noinline u32 body_begins(u32 gathering, u64 socket, u32 kind, u32 seq, u32 bytes)
{
	struct gathering *head = bpf_map_lookup_elem(&gatherings, &gathering);
	struct body_key key = { .socket = socket, .kind = kind };
	u32 end;

	if (!head || head->bytes < HEAD_MAX || !may_have_body(head->payload))
		return false;
	end = head_and_body(gathering);
	if (end <= bytes)
		return false;
	end += seq;
	bpf_map_update_elem(&bodies, &key, &end, 0);
	return true;
}

/* The same of a message that is at `address` in the caller's memory. */
__noinline u32 body_begins_flat(u64 address, u64 socket, u32 kind, u32 seq, u32 bytes)
{
	struct gathering *head;
	u8 first[16] = {};
	u32 index;

	if (bpf_probe_read_user(first, sizeof(first), (void *)address) || !may_have_body(first))
		return false;
	index = gathering_enter(LANES_A_CPU * bpf_get_smp_processor_id());
	head = bpf_map_lookup_elem(&gatherings, &index);
	if (!head)
		return false;
	head->bytes = bpf_probe_read_user(head->payload, HEAD_MAX, (void *)address) ? 0 : HEAD_MAX;
	body_begins(index, socket, kind, seq, bytes);
	gathering_leave(head);
	return true;
}

#endif
