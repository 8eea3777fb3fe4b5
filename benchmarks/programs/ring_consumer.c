/*
 * The baseline: empties a BPF ring as a libbpf consumer does whose callback copies the record.
 *
 *     ring_consumer DESCRIPTOR RING_BYTES
 *
 * For each line on stdin it takes all that is in the ring, and prints records and nanoseconds of CPU.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define BUSY 0x80000000U
#define DISCARDED 0x40000000U
#define LENGTH 0x3fffffffU
#define HEADER 8
#define COPIES (1 << 20) /* a buffer that stays in the cache */

static uint64_t *consumer, *producer;
static unsigned char *data;
static uint64_t mask;
static unsigned char copies[COPIES];
static size_t copied;

static void copy(const void *record, size_t size)
{
	if (copied + size > sizeof(copies))
		copied = 0;
	memcpy(copies + copied, record, size);
	__asm__ volatile("" : : "r"(copies) : "memory"); /* nobody reads them, but they must be made */
	copied += size;
}

static void (*volatile callback)(const void *record, size_t size) = copy;

static uint64_t take_all(void)
{
	uint64_t position = *consumer, records = 0;
	uint64_t end = __atomic_load_n(producer, __ATOMIC_ACQUIRE);

	while (position < end) {
		uint32_t *header = (uint32_t *)(data + (position & mask));
		uint32_t length = __atomic_load_n(header, __ATOMIC_ACQUIRE);

		if (length & BUSY)
			break;
		if (!(length & DISCARDED))
			callback(header + 2, length & LENGTH);
		position += HEADER + (((length & LENGTH) + 7) & ~7U);
		__atomic_store_n(consumer, position, __ATOMIC_RELEASE);
		records++;
	}
	return records;
}

static uint64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
	return time.tv_sec * 1000000000ULL + time.tv_nsec;
}

int main(int argc, char **argv)
{
	size_t page = sysconf(_SC_PAGESIZE), size;
	int descriptor;
	char line[8];

	if (argc < 3)
		return 2;
	descriptor = atoi(argv[1]);
	size = strtoul(argv[2], NULL, 10);
	mask = size - 1;
	consumer = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
	producer = mmap(NULL, page + 2 * size, PROT_READ, MAP_SHARED | MAP_POPULATE, descriptor, page);
	if (consumer == MAP_FAILED || producer == MAP_FAILED) {
		perror("mmap");
		return 1;
	}
	data = (unsigned char *)producer + page;
	while (fgets(line, sizeof(line), stdin)) {
		uint64_t start = now(), records = take_all();

		printf("%llu %llu\n", (unsigned long long)records, (unsigned long long)(now() - start));
		fflush(stdout);
	}
	return 0;
}
