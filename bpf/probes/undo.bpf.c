/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* A segment arrives at an established connection and TCP has not processed it yet: did the one before cause an undo? */
#include "tcprism/undo.h"

SEC("tp_btf/tcp_probe") int tracepoint_undo(u64 *ctx)
{
	struct sock *sk = (void *)ctx[0];
	struct note *note = note_of(sk, READS_BTF);

	if (note)
		undo_check(sk, note);
	return 0;
}
