/*
 * Stores that others do not see yet: the memory of x86-64 (Owens, Sarkar and
 * Sewell, "A better x86 memory model: x86-TSO", 2009), with a bound on how many
 * stores begin to wait.
 *
 * A store that is not seq_cst may wait.  The fiber that made it sees it; those
 * it makes later wait behind it.  They are all seen by others at its next
 * read-modify-write, seq_cst store, lock or unlock, and when it ends.  Before
 * that they may be seen at any time: which only matters to another fiber that
 * uses one of the addresses, and is decided then.
 */
#ifndef OBJCG_EXPLORE_STORE_BUFFER_H
#define OBJCG_EXPLORE_STORE_BUFFER_H

#include "run.h"

/* Makes all that waits visible. */
void store_buffer_flush(struct fiber *fiber);

/* A store of the current fiber: whether it waits now. */
bool store_buffer_put(const char *site, unsigned order, volatile void *p, unsigned size,
		      uint64_t value, bool shared);

/* What the current fiber reads of its own stores; false if there is none to that address. */
bool store_buffer_get(const volatile void *p, unsigned size, uint64_t *value);

/* The current fiber is about to use an address: which stores of others does it see? */
void store_buffer_meet(const volatile void *p, unsigned size);

#endif
