/*
 * The kernel before the thread's patch: each allocation goes from the task to
 * its group and up, in a section, until it gets a reference to an objcg; the
 * block takes one of its own; then the first is given back.
 */
#ifndef OBJCG_FAST_H
#define OBJCG_FAST_H

#include "charged.h"
#include "references.h"
#include "walk.h"

static inline void *kmem_alloc_fast(struct cpu *cpu, const struct task *task, enum domain domain,
				    size_t size)
{
	void *block;
	uint32_t id;

	walk_enter(cpu);
	id = get_obj_cgroup_from_task(cpu, task);
	walk_exit(cpu);

	/*
	 * Without the section: only we write our slots, so if this one has the id
	 * now, it had it while the section ran, and an id with a slot is not recycled.
	 */
	block = charged_alloc_small(cpu, id << 1, domain, size);
	if (likely(block))
		obj_cgroup_get(cpu, id);
	obj_cgroup_put(cpu, id);
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

#endif
