/*
 * The fast path: a block of a small class, whose task has a valid reference and
 * whose objcg has stock, taken and given back without a call.
 *
 * lab/ replaces this file by other ways of doing the same, to measure each.
 */
#ifndef OBJCG_FAST_H
#define OBJCG_FAST_H

#include "slab.h"
#include "stock.h"

/* The small case; NULL means "take the slow path", and nothing was changed. */
static inline void *kmem_alloc_fast(struct cpu *cpu, const struct task *task, enum domain domain,
				    size_t size)
{
	uint32_t reference = load_relaxed(&task->objcg);
	unsigned class = small_class(size);
	void *block;

	/* A block taken under a flagged reference is put back below. */
	if (unlikely(!consume_stock(cpu, reference, domain, (int64_t)(class + 1) << 4)))
		return NULL;
	block = slab_alloc_fast(cpu, class, reference >> 1);
	if (unlikely(!block))
		refill_stock(cpu, reference >> 1, domain, (int64_t)(class + 1) << 4);
	return block;
}

/* The small case of freeing a block in the slab range; false: use kmem_free(). */
static inline bool kmem_free_fast(struct cpu *cpu, enum domain domain, void *p)
{
	struct slab *slab = virt_to_slab(p);

	if (unlikely(!slab_is_small(slab)))
		return false;
	if (unlikely(!refill_stock(cpu, slab_owner(slab, p), domain, slab->block_size)))
		return false;
	slab_free(cpu, slab, p);
	return true;
}

#endif
