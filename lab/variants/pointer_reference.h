/* The pointer of the patch, with a reference of each block. */
#ifndef OBJCG_FAST_H
#define OBJCG_FAST_H

#include "references.h"

static inline void *kmem_alloc_fast(struct cpu *cpu, const struct task *task, enum domain domain,
				    size_t size)
{
	uint32_t reference = load_relaxed(&task->objcg);
	unsigned class = small_class(size);
	void *block;

	if (unlikely(!consume_stock(cpu, reference, domain, (int64_t)(class + 1) << 4)))
		return NULL;
	block = slab_alloc_fast(cpu, class, reference >> 1);
	if (unlikely(!block))
		refill_stock(cpu, reference >> 1, domain, (int64_t)(class + 1) << 4);
	else
		obj_cgroup_get(cpu, reference >> 1);
	return block;
}

static inline bool kmem_free_fast(struct cpu *cpu, enum domain domain, void *p)
{
	struct slab *slab = virt_to_slab(p);
	uint32_t id;

	if (unlikely(!slab_is_small(slab)))
		return false;
	id = slab_owner(slab, p);
	if (unlikely(!refill_stock(cpu, id, domain, slab->block_size)))
		return false;
	slab_free(cpu, slab, p);
	obj_cgroup_put(cpu, id);
	return true;
}

/* The task's own reference. */
#define VARIANT_EXIT
void variant_exit(struct cpu *cpu, struct task *task);

#endif
