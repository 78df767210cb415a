/*
 * References to an objcg, counted: one of each block, one of each task that has
 * a pointer to it.
 *
 * As the kernel's percpu_ref: while the group is there a count is a plain
 * addition of this cpu's own; after that, an atomic operation on a shared one.
 * A count that was raised here and lowered there is right as a sum, which is
 * all that is asked of it at a quiet moment.
 *
 * What is measured is the counting.  Whether an id is recycled is still the
 * core's decision, by bytes, so that nothing else differs.
 */
#ifndef OBJCG_LAB_REFERENCES_H
#define OBJCG_LAB_REFERENCES_H

#include "slab.h"
#include "stock.h"

#include "kmem.h"
#include "lab.h"

struct shared_references {
	_Alignas(64) _Atomic int64_t nr;
};

extern _Atomic int64_t cpu_references[LAB_CPUS][LAB_RECORDS];
extern struct shared_references shared_references[LAB_RECORDS];

static inline bool objcg_is_live(uint32_t id)
{
	return load_relaxed(&objcg_from_id(id)->state) == OBJCG_LIVE;
}

static inline void references_add(struct cpu *cpu, uint32_t id, int64_t nr)
{
#ifndef LAB_SHARED_REFERENCES
	if (likely(objcg_is_live(id))) {
		add_single_writer(&cpu_references[cpu->index][id], nr);
		return;
	}
#endif
	(void)cpu;
	fetch_add_relaxed(&shared_references[id].nr, nr);
}

static inline void obj_cgroup_get(struct cpu *cpu, uint32_t id)
{
	references_add(cpu, id, 1);
}

static inline void obj_cgroup_put(struct cpu *cpu, uint32_t id)
{
	references_add(cpu, id, -1);
}

/* Fails for an objcg whose group is gone. One look at that, as percpu_ref_tryget() has. */
static inline bool obj_cgroup_tryget(struct cpu *cpu, uint32_t id)
{
	if (unlikely(!objcg_is_live(id)))
		return false;
#ifdef LAB_SHARED_REFERENCES
	obj_cgroup_get(cpu, id);
#else
	add_single_writer(&cpu_references[cpu->index][id], 1);
#endif
	return true;
}

int64_t references_of(uint32_t id);

/* --- what a variant with a reference of each block has in common --------- */

#define VARIANT_SLOW
static inline void *variant_alloc_slow(struct cpu *cpu, struct task *task, size_t size)
{
	struct charge_result result = {0, 0, 0};
	void *p = kmem_alloc(cpu, task, DOMAIN_OBJECT, size, false, &result);
	size_t bytes;

	if (p)
		obj_cgroup_get(cpu, kmem_owner(p, &bytes));
	return p;
}

static inline void variant_free_slow(struct cpu *cpu, void *p)
{
	size_t bytes;
	uint32_t id = kmem_owner(p, &bytes);

	kmem_free(cpu, DOMAIN_OBJECT, p);
	obj_cgroup_put(cpu, id);
}

#define VARIANT_REFERENCES
static inline int64_t variant_references(uint32_t id)
{
	return references_of(id);
}

#define VARIANT_FLAGS (LAB_CHARGES | LAB_COUNTS | LAB_MIGRATES | LAB_TASKS)

#endif
