/*
 * The fast path: a block of a slab, whose task has a valid reference and whose
 * objcg has stock, taken and given back without a lock or a section.
 *
 * lab/ replaces this file by other ways of doing the same, to measure each.
 */
#ifndef OBJCG_FAST_H
#define OBJCG_FAST_H

#include "charged.h"

/* Up to SLAB_SMALL_MAX bytes; NULL means "take the slow path", and nothing was changed. */
static inline void *kmem_alloc_fast(struct cpu *cpu, const struct task *task, enum domain domain,
				    size_t size)
{
	return charged_alloc_small(cpu, load_relaxed(&task->objcg), domain, size);
}

/* Above that, up to SLAB_BLOCK_MAX. */
static inline void *kmem_alloc_medium_fast(struct cpu *cpu, const struct task *task,
					   enum domain domain, size_t size)
{
	return charged_alloc_medium(cpu, load_relaxed(&task->objcg), domain, size);
}

/* A block in the slab range; false: use kmem_free(). */
static inline bool kmem_free_fast(struct cpu *cpu, enum domain domain, void *p)
{
	return charged_free_any(cpu, domain, p);
}

#endif
