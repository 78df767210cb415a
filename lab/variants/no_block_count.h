/*
 * The shipped fast path without its count of blocks: a lower bound.  The slow
 * path still counts, so memory.stat is wrong here; bytes are right.
 */
#ifndef OBJCG_FAST_H
#define OBJCG_FAST_H

#include "slab.h"
#include "stock.h"

static inline bool consume_stock_bytes(struct cpu *cpu, uint32_t reference, int64_t bytes)
{
	struct stock *stock = stock_slot(cpu, reference >> 1);
	int64_t left = load_relaxed(&stock->bytes) - bytes;

	if (unlikely(load_relaxed(&stock->key) != reference || left < 0))
		return false;
	store_relaxed(&stock->bytes, left);
	return true;
}

static inline bool refill_stock_bytes(struct cpu *cpu, uint32_t id, int64_t bytes)
{
	struct stock *stock = stock_slot(cpu, id);
	int64_t sum = load_relaxed(&stock->bytes) + bytes;

	if (unlikely(load_relaxed(&stock->key) != id << 1 || sum > STOCK_MAX))
		return false;
	store_relaxed(&stock->bytes, sum);
	return true;
}

static inline void *kmem_alloc_fast(struct cpu *cpu, const struct task *task, enum domain domain,
				    size_t size)
{
	uint32_t reference = load_relaxed(&task->objcg);
	unsigned class = small_class(size);
	void *block;

	(void)domain;
	if (unlikely(!consume_stock_bytes(cpu, reference, (int64_t)(class + 1) << 4)))
		return NULL;
	block = slab_alloc_fast(cpu, class, reference >> 1);
	if (unlikely(!block))
		refill_stock_bytes(cpu, reference >> 1, (int64_t)(class + 1) << 4);
	return block;
}

static inline bool kmem_free_fast(struct cpu *cpu, enum domain domain, void *p)
{
	struct slab *slab = virt_to_slab(p);

	(void)domain;
	if (unlikely(!slab_is_small(slab)))
		return false;
	if (unlikely(!refill_stock_bytes(cpu, slab_owner(slab, p), slab->block_size)))
		return false;
	slab_free(cpu, slab, p);
	return true;
}

#endif
