/*
 * A program that lives by malloc: a working set of 10,000 blocks of 16 to 4096
 * bytes, each written, freed and replaced in random order.  Prints a sum of what it
 * has written; `churn` does the same for a caller that has loaded this as a library.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define NR 10000

static uint64_t state = 42;

static uint64_t next_random(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

/* Nanoseconds for each free and malloc. */
double churn(long nr, uint64_t *sum)
{
	static unsigned char *blocks[NR];
	struct timespec from;
	struct timespec to;

	clock_gettime(CLOCK_MONOTONIC, &from);
	for (long i = 0; i < nr; i++) {
		uint64_t random = next_random();
		unsigned k = (unsigned)(random >> 32) % NR;
		size_t size = 16 + (random & 0xffff) % 4081;

		if (blocks[k])
			*sum += *blocks[k];
		free(blocks[k]);
		blocks[k] = malloc(size);
		if (!blocks[k])
			return -1;
		memset(blocks[k], (int)i, size);
	}
	for (int k = 0; k < NR; k++) {
		free(blocks[k]);
		blocks[k] = NULL;
	}
	clock_gettime(CLOCK_MONOTONIC, &to);
	return ((double)(to.tv_sec - from.tv_sec) * 1e9 + (double)(to.tv_nsec - from.tv_nsec)) /
	       (double)nr;
}

int main(int argc, char **argv)
{
	uint64_t sum = 0;
	double ns = churn(argc > 1 ? atol(argv[1]) : 1000000, &sum);

	printf("%llu\n", (unsigned long long)sum);
	if (argc > 2)
		printf("%.1f\n", ns);
	return ns < 0;
}
