/*
 * Tasks cannot be moved: then a task's reference is a constant, which whoever
 * caches the task caches beside it.  No load of the task's record, no flag.
 */
#ifndef OBJCG_FAST_H
#define OBJCG_FAST_H

#include "slab.h"
#include "stock.h"

static inline void *kmem_alloc_fast(struct cpu *cpu, uint32_t reference, enum domain domain,
				    size_t size)
{
	unsigned class = small_class(size);
	void *block;

	if (unlikely(!consume_stock(cpu, reference, domain, (int64_t)(class + 1) << 4)))
		return NULL;
	block = slab_alloc_fast(cpu, class, reference >> 1);
	if (unlikely(!block))
		refill_stock(cpu, reference >> 1, domain, (int64_t)(class + 1) << 4);
	return block;
}

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

#define VARIANT_CACHE
#define variant_alloc(cache, size)                                                                 \
	kmem_alloc_fast((cache)->cpu, (cache)->reference, DOMAIN_OBJECT, (size))

#define VARIANT_FLAGS (LAB_CHARGES | LAB_TASKS)

#endif
