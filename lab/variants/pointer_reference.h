/* The pointer of the patch, with a reference of each block. */
#ifndef OBJCG_FAST_H
#define OBJCG_FAST_H

#include "charged.h"
#include "references.h"

static inline void *kmem_alloc_fast(struct cpu *cpu, const struct task *task, enum domain domain,
				    size_t size)
{
	uint32_t reference = load_relaxed(&task->objcg);
	void *block = charged_alloc_small(cpu, reference, domain, size);

	if (likely(block))
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
	if (unlikely(!charged_free_any(cpu, domain, p)))
		return false;
	obj_cgroup_put(cpu, id);
	return true;
}

/* The task's own reference. */
#define VARIANT_EXIT
void variant_exit(struct cpu *cpu, struct task *task);

#endif
