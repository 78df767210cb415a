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

#include "slab.h"
#include "stock.h"

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
	uint32_t id = task_to_objcg(cpu, task);
	unsigned class = small_class(size);
	void *block;

	if (unlikely(!consume_stock(cpu, id << 1, domain, (int64_t)(class + 1) << 4)))
		return NULL;
	block = slab_alloc_fast(cpu, class, id);
	if (unlikely(!block))
		refill_stock(cpu, id, domain, (int64_t)(class + 1) << 4);
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

#endif
