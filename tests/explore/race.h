/*
 * Data races: two uses of the same bytes, one of them a write and one of them
 * plain, with nothing that orders them.  A plain use is where nobody else may
 * go first in an execution here; that nobody could notice is what this shows.
 *
 * "Orders" is C11's: a release store or read-modify-write, and an acquire that
 * read it or a later read-modify-write.  So a store that should release and
 * does not is found, though on x86-64 it would do no harm.
 */
#ifndef OBJCG_EXPLORE_RACE_H
#define OBJCG_EXPLORE_RACE_H

#include <stdbool.h>
#include <stddef.h>

#include "location.h"

/* A plain use by the current fiber; `pc` says where. */
void race_plain(const volatile void *p, size_t size, bool write, const void *pc);

/* An atomic one. */
void race_atomic(struct location *location, unsigned halves, bool write);

/* What an atomic operation orders. */
void race_order(struct location *location, unsigned halves, bool read, bool write, unsigned order);
void race_release(unsigned order);

#endif
