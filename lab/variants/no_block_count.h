/*
 * The shipped fast path without its count of blocks: a lower bound.  The slow
 * path still counts, so memory.stat is wrong here; bytes are right.
 */
#ifndef OBJCG_FAST_H
#define OBJCG_FAST_H

#define STOCK_COUNTS_BLOCKS 0
#include "charged.h"

static inline void *kmem_alloc_fast(struct cpu *cpu, const struct task *task, enum domain domain,
				    size_t size)
{
	return charged_alloc_small(cpu, load_relaxed(&task->objcg), domain, size);
}

static inline bool kmem_free_fast(struct cpu *cpu, enum domain domain, void *p)
{
	return charged_free_any(cpu, domain, p);
}

#endif
