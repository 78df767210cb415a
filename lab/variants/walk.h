/* From a task to an objcg as the kernel did it before there was a pointer. */
#ifndef OBJCG_LAB_WALK_H
#define OBJCG_LAB_WALK_H

#include "references.h"

/* A task names a set of groups, one of each kind, and the set names ours: two loads. */
struct css_set {
	_Alignas(64) _Atomic uint32_t memcg;
};

extern struct css_set css_sets[LAB_RECORDS];

/*
 * The kernel's rcu_read_lock() is a counter of the task, or nothing at all.
 * Our section stores with a full fence.  With LAB_PLAIN_SECTION it does not,
 * and whoever waits for sections to end has all threads pass a barrier first
 * (plain_section.c): the reader then costs what it costs the kernel.
 */
static inline void walk_enter(struct cpu *cpu)
{
#ifdef LAB_PLAIN_SECTION
	store_relaxed(&cpu->record->section, load_relaxed(&cpu_epoch));
	atomic_signal_fence(memory_order_seq_cst);
#else
	section_enter(cpu);
#endif
}

static inline void walk_exit(struct cpu *cpu)
{
	section_exit(cpu);
}

/* In a section. The root is never removed, so this ends. */
static inline uint32_t get_obj_cgroup_from_task(struct cpu *cpu, const struct task *task)
{
	uint32_t set = load_acquire(&task->memcg);
	struct mem_cgroup *memcg = memcg_from_id(load_acquire(&css_sets[set].memcg));
	uint32_t id;

	for (;;) {
		id = load_acquire(&memcg->objcg);
		if (likely(id && obj_cgroup_tryget(cpu, id)))
			return id;
		memcg = parent_mem_cgroup(memcg);
	}
}

#define VARIANT_INIT
void variant_init(void);

#endif
