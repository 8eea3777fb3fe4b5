/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* TLS records in one direction of a connection: which bytes of TCP carry the next plaintext. */
#ifndef TCPRISM_TLS_STREAM_H
#define TCPRISM_TLS_STREAM_H

#include "helpers.h"

#define RECORD_HEADER 5
#define RECORD_CHANGE_CIPHER 20
#define RECORD_HANDSHAKE 22
#define CLIENT_HELLO 1 /* handshake messages: RFC 8446, 4 */
#define SERVER_HELLO 2
#define RECORD_DATA 23 /* application data, and all that TLS 1.3 encrypts */
#define RECORD_MAX ((1 << 14) + 2048)
#define STEPS_MAX 256 /* of a read: two a record */

/*
 * Records whose plaintext no call has returned so far. A library may read many at once, and the begin of one more; a
 * call may end before its record has been sent, or has come to its end.
 */
struct tls_stream {
	u32 begin; /* sequence number of the first of them */
	u32 whole; /* after the last that is there to the end */
	u32 next;  /* after the last byte */
	u32 later; /* of the record in the latest read that plaintext begins with if a handshake has ended in it */
	u32 left;  /* bytes to come of the record that has begun */
	u32 missed; /* bytes that others have moved in between: their plaintext was not seen */
	u64 plaintext; /* bytes that calls have moved */
	u32 cut;   /* bytes of a header that a read has cut */
	u8 header[8];
	u8 known;  /* the sequence numbers are */
	u8 lost;   /* where records begin is not known */
	u8 has_data, has_later; /* the latest read */
	u8 is_client; /* it has sent a ClientHello */
	u8 begun;     /* what its first record is was seen: */
	u8 from_hello; /* a hello */
	u8 finishes; /* the latest read has changed ciphers, and then had a message of TLS 1.2's handshake: Finished */
};

#define CHANGED_CIPHERS 1
#define FINISHED_12 2

/* RFC 8446, 5.1: a type from change_cipher_spec to heartbeat, the version 3.x, a length. */
INLINE bool is_header(const u8 *header)
{
	return header[0] >= 20 && header[0] <= 24 && header[1] == 3 && header[2] <= 4 &&
	       (header[3] << 8 | header[4]) <= RECORD_MAX;
}

INLINE bool is_record(u64 bytes)
{
	u8 header[RECORD_HEADER] = {};

	return bytes && !bpf_probe_read_user(header, sizeof(header), (void *)bytes) && is_header(header);
}

INLINE bool is_hello(u64 bytes)
{
	u8 header[RECORD_HEADER + 1] = {};

	return bytes && !bpf_probe_read_user(header, sizeof(header), (void *)bytes) && is_header(header) &&
	       header[0] == RECORD_HANDSHAKE && (header[5] == CLIENT_HELLO || header[5] == SERVER_HELLO);
}

INLINE void stream_restart(struct tls_stream *s, u32 seq)
{
	s->begin = s->whole = s->next = seq;
	s->left = 0;
	s->cut = 0;
	s->lost = false;
}

/* A record is there to the end. What is no data, and before all data, carries no plaintext. */
INLINE void stream_whole(struct tls_stream *s, u32 end)
{
	if (s->begin == s->whole && s->header[0] != RECORD_DATA)
		s->begin = end;
	s->whole = end;
	s->cut = 0;
}

/* A record has begun, and its header ends here. */
INLINE void stream_record(struct tls_stream *s, u32 end)
{
	if (!is_header(s->header)) {
		s->lost = true;
		return;
	}
	s->left = s->header[3] << 8 | s->header[4];
	if (s->header[0] == RECORD_HANDSHAKE && s->header[5] == CLIENT_HELLO)
		s->is_client = true;
	if (s->header[0] == RECORD_CHANGE_CIPHER)
		s->finishes = CHANGED_CIPHERS;
	else if (s->header[0] == RECORD_HANDSHAKE && s->finishes == CHANGED_CIPHERS)
		s->finishes = FINISHED_12;
	if (s->header[0] == RECORD_DATA) {
		if ((s->has_data || s->finishes == FINISHED_12) && !s->has_later) {
			s->has_later = true;
			s->later = s->whole;
		}
		s->has_data = true;
	}
	if (!s->left)
		stream_whole(s, end);
}

/* One step through bytes: (the rest of) a header, or of what follows it. Returns how many bytes it took. */
INLINE u32 stream_step(struct tls_stream *s, u64 bytes, u32 length, u32 seq)
{
	u32 taken;

	if (s->lost)
		return 0;
	if (s->cut < RECORD_HEADER) {
		u32 at = s->cut;

		if (!at && length > RECORD_HEADER) {
			if (bpf_probe_read_user(s->header, RECORD_HEADER + 1, (void *)bytes))
				s->header[0] = 0;
			taken = RECORD_HEADER;
		} else if (!at && length == RECORD_HEADER) {
			s->header[5] = 0;
			if (bpf_probe_read_user(s->header, RECORD_HEADER, (void *)bytes))
				s->header[0] = 0;
			taken = RECORD_HEADER;
		} else {
			s->header[5] = 0;
			if (bpf_probe_read_user(s->header + (at & 7), 1, (void *)bytes))
				s->header[0] = 0;
			taken = 1;
		}
		s->cut = at + taken;
		if (s->cut >= RECORD_HEADER)
			stream_record(s, seq + taken);
		return taken;
	}
	if (!s->begun) {
		u8 type = 0;

		s->begun = true;
		s->from_hello = s->header[0] == RECORD_HANDSHAKE && !bpf_probe_read_user(&type, 1, (void *)bytes) &&
				(type == CLIENT_HELLO || type == SERVER_HELLO);
	}
	taken = MIN(s->left, length);
	s->left -= taken;
	if (!s->left)
		stream_whole(s, seq + taken);
	return taken;
}

/*
 * TCP has moved bytes: before the steps through them. Returns where they begin. Where TCP cannot tell, they follow
 * those before: what others sent or read in between would break the session. A library that reads on had no plaintext in
 * what it has read: a handshake's messages, session tickets.
 */
INLINE u32 stream_moves(struct tls_stream *s, u64 bytes, u32 seq, bool received, bool unsure)
{
	if (received)
		s->begin = s->whole;
	if (unsure) {
		seq = s->next;
	} else if (!s->known || seq != s->next) {
		if (s->known && after(seq, s->next))
			s->missed += seq - s->next;
		stream_restart(s, seq);
		s->known = true;
	}
	s->has_data = s->has_later = false;
	s->finishes = 0;
	if (s->lost && is_record(bytes))
		s->lost = s->cut = s->left = 0;
	return seq;
}

/* After the steps. Bytes that they did not reach are taken as they come. */
INLINE void stream_moved(struct tls_stream *s, u32 end, bool reached)
{
	s->next = end;
	if (reached)
		return;
	s->lost = true;
	s->whole = end;
}

/* A session in memory is known to be of a connection: what it moved before was shown without one. */
INLINE void stream_joins(struct tls_stream *s, bool had_messages)
{
	s->plaintext = 0;
	s->known = false;
	if (had_messages)
		s->from_hello = false;
}

/* What was counted by offset is so from now on by sequence number: the byte at this offset has this one. */
INLINE void stream_place(struct tls_stream *s, u32 offset, u32 seq)
{
	u32 distance = seq - offset;

	s->begin += distance;
	s->whole += distance;
	s->next += distance;
	s->later += distance;
	s->known = true;
}

/* Whether exactly the header of a record has been seen. */
INLINE bool stream_after_header(const struct tls_stream *s)
{
	return s->cut >= RECORD_HEADER && s->left == (u32)(s->header[3] << 8 | s->header[4]);
}

/* A message takes what is there to the end. Returns how many bytes. */
INLINE u32 stream_take(struct tls_stream *s, bool sent, u32 *seq)
{
	u32 taken;

	if (sent) /* to the end, or the library would not say so */
		s->whole = s->next;
	*seq = s->begin;
	taken = s->whole - s->begin;
	s->begin = s->whole;
	return taken;
}

/*
 * A handshake has ended. What has been received may be data already, behind the other end's Finished. The client's looks
 * like data in TLS 1.3, so the first record of the latest read is taken for it; in TLS 1.2, none of a handshake does.
 */
INLINE void stream_handshaken(struct tls_stream *s, bool is_client)
{
	bool is_later = s->has_later && (!is_client || s->finishes == FINISHED_12);

	s->begin = is_later ? s->later : s->whole;
}

#endif
