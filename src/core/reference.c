#include "reference.h"

static uint64_t task_word(uint32_t memcg, uint32_t reference)
{
	return (uint64_t)memcg << 32 | reference;
}

/*
 * The kernel stores OBJCG_UPDATE here and leaves the look-up to the first
 * allocation.  The group cannot go away while we hold tree_lock, so the
 * reference can be had for nothing.
 */
void reference_init(struct task *task, struct mem_cgroup *memcg)
{
	store_release(&task->word, task_word(memcg_id(memcg), load_relaxed(&memcg->objcg) << 1));
}

void reference_flag(struct task *task, struct mem_cgroup *memcg)
{
	store_seq_cst(&task->word, task_word(memcg_id(memcg), OBJCG_UPDATE));
}

/*
 * Lock-free; after the kernel's function of this name in the form that took no
 * spinlock.  The group and the reference are one word of 64 bits: a mover stores
 * the group with OBJCG_UPDATE and no reference, and we exchange that word for
 * the same group with the reference found.  (Two words do not do: a second
 * updater could clear the flag of a move that the first has not seen, and the
 * first then store what it found before; the move would be lost.)  Who may race:
 *
 * - A move.  Before our compare-and-exchange: it fails, and we look again.
 *   After: the next allocation sees the flag; what is allocated in between goes
 *   to the old group, as it might have a moment earlier.
 * - Removal of the group we found.  We see it offline and walk to the parent;
 *   or we take its objcg just before, and our section keeps the id from being
 *   recycled: what we charge goes, through the objcg, to the parent.  The mover
 *   that emptied the group has changed our word, so we do not keep the reference.
 *   This is the thread's "can the tryget fail": it can, by a move and a removal
 *   between our load of the word and that of the group.
 * - A move away and back to a group of the same record.  The word is equal
 *   again, and what we found is right again: our section keeps the record from
 *   becoming another group's.
 * - Another thread on which this same task is current.  One of us succeeds, the
 *   other takes the reference it finds.
 *
 * tests/core/test_task.c stages the first two step by step; models/update and the
 * scenarios update-*, two-cpus-* of tests/explore take all orders.
 */
uint32_t current_objcg_update(struct task *task)
{
	uint64_t word = load_acquire(&task->word);

	for (;;) {
		uint32_t reference = (uint32_t)word;
		uint32_t group = (uint32_t)(word >> 32);
		uint32_t found = 0;
		struct mem_cgroup *memcg;

		if (reference && !(reference & OBJCG_UPDATE))
			return reference >> 1; /* another thread was faster */
		for (memcg = memcg_from_id(group); memcg; memcg = parent_mem_cgroup(memcg)) {
			if (load_seq_cst(&memcg->state) != MEMCG_ONLINE)
				continue;
			found = load_acquire(&memcg->objcg);
			if (found)
				break;
		}
		/* The root is never removed, so something was found. */
		if (cas_acq_rel(&task->word, &word, task_word(group, found << 1)))
			return found;
	}
}
