/*
 * A pointer to the group instead of one to its objcg: "saving a lazily-updating
 * memcg pointer on task_struct".  One more load in each allocation; bytes are
 * the reference, as in the shipped core.
 *
 * It needs protection that a pointer to an objcg does not need.  A stock with
 * bytes of an objcg proves that its id is not recycled; nothing here proves
 * that for the group's record.  Between the two loads the group may be removed
 * and its record become another group's: the block would be charged to a
 * stranger.  So either a section around both (LAB_MEMCG_SECTION), or a second
 * look: a record is reused only after its tasks were flagged, so if the pointer
 * is still the same after the second load, the record was still the group's.
 */
#ifndef OBJCG_FAST_H
#define OBJCG_FAST_H

#include "charged.h"

/*
 * task->objcg holds memcg << 1 | OBJCG_UPDATE.  The flag is always set, so that
 * charge_task() always asks current_objcg_update() (memcg_pointer.c); "look
 * again" is group 0, whose record is empty: its objcg is 0, and no stock has it.
 */
static inline uint32_t task_to_objcg(struct cpu *cpu, const struct task *task)
{
	uint32_t pointer;
	uint32_t id;

#ifdef LAB_MEMCG_SECTION
	section_enter(cpu);
	pointer = load_seq_cst(&task->objcg);
	id = load_acquire(&memcg_from_id(pointer >> 1)->objcg);
	section_exit(cpu);
#else
	(void)cpu;
	pointer = load_acquire(&task->objcg);
	id = load_acquire(&memcg_from_id(pointer >> 1)->objcg);
	if (unlikely(load_relaxed(&task->objcg) != pointer))
		return 0;
#endif
	return id;
}

static inline void *kmem_alloc_fast(struct cpu *cpu, const struct task *task, enum domain domain,
				    size_t size)
{
	return charged_alloc_small(cpu, task_to_objcg(cpu, task) << 1, domain, size);
}

static inline bool kmem_free_fast(struct cpu *cpu, enum domain domain, void *p)
{
	return charged_free_any(cpu, domain, p);
}

#endif
