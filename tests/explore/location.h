/* What the explorer knows of each address that the core uses atomically, or plainly in an execution. */
#ifndef OBJCG_EXPLORE_LOCATION_H
#define OBJCG_EXPLORE_LOCATION_H

#include <stdbool.h>
#include <stdint.h>

#include "fiber.h"

/* A vector clock: how far each fiber was. 0 is before the execution. */
struct clock {
	uint16_t at[FIBERS_MAX];
};

/* Of four bytes.  A task's word is read as a whole and by halves. */
struct half {
	/* Over all executions: which fibers, as bits. */
	uint8_t readers;
	uint8_t writers;
	bool shared;

	/* In this execution. */
	uint64_t version; /* hash of all that led to the last write */
	uint64_t reads;	  /* and to the reads since then, in no order */
	struct clock released;
	struct clock atomic_writes;
	struct clock plain_writes;
	struct clock plain_reads;
};

struct location {
	uintptr_t key;
	uint32_t execution;
	struct half halves[2];
};

void locations_init(void);
void locations_next_execution(void);

/* The eight bytes that `p` is in. */
struct location *location_of(const volatile void *p);

/* Which halves an access of `size` bytes at `p` touches: bits. */
static inline unsigned halves_of(const volatile void *p, unsigned size)
{
	return size == 8 ? 3u : 1u << (((uintptr_t)p >> 2) & 1);
}

#define for_each_half(half, location, which)                                                       \
	for (unsigned nth_ = 0; nth_ < 2; nth_++)                                                  \
		for (struct half *half = (which) >> nth_ & 1 ? &(location)->halves[nth_] : NULL;   \
		     half; half = NULL)

#endif
