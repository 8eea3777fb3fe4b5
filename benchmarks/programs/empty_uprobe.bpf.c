/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* Programs that do nothing, where a function begins and where it returns: what it takes to get there. */
#include "tcprism/helpers.h"

SEC("uprobe") int empty_entry(struct pt_regs *ctx)
{
	return 0;
}

SEC("uretprobe") int empty_return(struct pt_regs *ctx)
{
	return 0;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
