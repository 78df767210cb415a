/*
 * Blocks above SLAB_BLOCK_MAX: from the C library, which grows them in place or
 * by mremap as it does for everyone, with a header before the block.
 *
 * Whether a block outside the slab range is one of these must be told from its
 * address, and it may be anybody's: CPython frees through us what it allocated
 * before we came.  The header ends with a cookie, a random number of 64 bits
 * combined with the address.  Reading it is safe for any block that is alive,
 * because no block of ours begins in the first HEADER bytes of a page: for an
 * address that does, the answer is no without reading; for any other the bytes
 * before it are on the same page as the block.  For a block of glibc's the
 * cookie's place holds the chunk's size, which is never that number; for others
 * a mistake takes a coincidence of one in 2^64.
 *
 * All blocks are in a table, so that the audit can find them.
 */
#ifndef OBJCG_LARGE_H
#define OBJCG_LARGE_H

#include "types.h"

struct large_header {
	uint64_t size; /* charged bytes */
	uint32_t objcg;
	uint32_t slot;	 /* in the table */
	uint32_t offset; /* from what the C library returned to the block */
	uint32_t domain;
	uint64_t cookie;
};

#define LARGE_HEADER sizeof(struct large_header)

_Static_assert(sizeof(struct large_header) == 32, "keeps blocks aligned to 16");

int large_init(void);

extern uint64_t large_cookie;

static inline struct large_header *large_header(void *p)
{
	return (struct large_header *)p - 1;
}

static inline bool is_large(void *p)
{
	if (((uintptr_t)p & 4095) < LARGE_HEADER)
		return false;
	return large_header(p)->cookie == (large_cookie ^ (uintptr_t)p);
}

/* What all blocks are charged. */
extern _Atomic size_t large_total;

static inline size_t large_in_use(void)
{
	return load_relaxed(&large_total);
}

/* NULL when there is no memory. `bytes` is what is charged. */
void *large_alloc(size_t bytes, bool zero, uint32_t objcg, enum domain domain);
void large_free(void *p);

/* Like realloc(3), for a block of ours; its header keeps owner and domain. */
void *large_realloc(void *p, size_t bytes);

/* Calls fn for every block, under the table's lock. */
void large_for_each(void (*fn)(const struct large_header *header, void *arg), void *arg);

void large_lock(void);
void large_unlock(void);
void large_lock_reset_after_fork(void);

#endif
