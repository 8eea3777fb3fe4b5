/* SPDX-License-Identifier: MIT */
/* Calls a function many times, and prints how many nanoseconds of CPU a call takes, the least of ten rounds. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* An instruction that the kernel emulates at a uprobe, and one that it single-steps. */
__asm__(".globl emulated; .type emulated, @function; emulated: push %rbx; pop %rbx; ret; .size emulated, . - emulated");
__asm__(".globl stepped; .type stepped, @function; stepped: sub $8, %rsp; add $8, %rsp; ret; .size stepped, . - stepped");

void emulated(void), stepped(void);

static double nanoseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return now.tv_sec * 1e9 + now.tv_nsec;
}

static double call(void (*function)(void), long calls)
{
	double least = 1e18;

	for (int round = 0; round < 10; round++) {
		double begin = nanoseconds(), each;

		for (long i = 0; i < calls; i++)
			function();
		each = (nanoseconds() - begin) / calls;
		if (each < least)
			least = each;
	}
	return least;
}

int main(int count, char **arguments)
{
	long calls = count > 1 ? atol(arguments[1]) : 10000;

	printf("%f %f\n", call(emulated, calls), call(stepped, calls));
	return 0;
}
