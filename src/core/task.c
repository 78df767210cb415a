#include "task.h"

#include <errno.h>
#include <string.h>

static uint32_t free_head;
static uint64_t next_id = 1;

static uint64_t task_word(uint32_t memcg, uint32_t reference)
{
	return (uint64_t)memcg << 32 | reference;
}

static void task_link(struct task *task, struct mem_cgroup *memcg)
{
	uint32_t index = task_index(task);

	task->prev = 0;
	task->next = memcg->task_head;
	if (task->next)
		region.tasks[task->next].prev = index;
	memcg->task_head = index;
	add_single_writer(&memcg->nr_tasks, 1);
}

static void task_unlink(struct task *task)
{
	struct mem_cgroup *memcg = memcg_from_id(load_relaxed(&task->memcg));

	if (task->prev)
		region.tasks[task->prev].next = task->next;
	else
		memcg->task_head = task->next;
	if (task->next)
		region.tasks[task->next].prev = task->prev;
	add_single_writer(&memcg->nr_tasks, (uint32_t)-1);
}

struct task *task_alloc(struct mem_cgroup *memcg, int *err)
{
	struct task *task = NULL;
	uint32_t index;

	tree_lock();
	if (load_relaxed(&memcg->state) != MEMCG_ONLINE) {
		*err = -ENODEV;
		goto out;
	}
	index = free_head;
	if (index) {
		free_head = region.tasks[index].next;
	} else {
		index = section_used(SECTION_TASK);
		if (index == 0)
			index = TASK_ROOT;
		if (region_reserve(SECTION_TASK, index + 1) < 0) {
			*err = -ENOSPC;
			goto out;
		}
	}
	task = &region.tasks[index];
	task->id = next_id++;
	task->name_len = 0;
	task_link(task, memcg);
	/*
	 * The kernel stores OBJCG_UPDATE here and leaves the look-up to the first
	 * allocation.  The group cannot go away while we hold tree_lock, so the
	 * reference can be had for nothing.
	 */
	store_release(&task->word, task_word(memcg_id(memcg), load_relaxed(&memcg->objcg) << 1));
	store_release(&task->state, TASK_LIVE);
out:
	tree_unlock();
	return task;
}

void task_free(struct task *task)
{
	tree_lock();
	task_unlink(task);
	/*
	 * A thread without the GIL may still look at this record
	 * (thread_cache_task_without_gil): gen tells it that its task is gone, and
	 * should it be too late for that, it charges the root.
	 */
	add_single_writer(&task->gen, 1);
	store_release(&task->word, task_word(MEMCG_ROOT, OBJCG_UPDATE));
	store_release(&task->state, TASK_FREE);
	task->next = free_head;
	free_head = task_index(task);
	tree_unlock();
}

void task_attach_locked(struct task *task, struct mem_cgroup *memcg)
{
	task_unlink(task);
	task_link(task, memcg);
	store_seq_cst(&task->word, task_word(memcg_id(memcg), OBJCG_UPDATE));
}

int task_move(struct task *task, uint32_t gen, struct mem_cgroup *memcg)
{
	int err = 0;

	tree_lock();
	if (load_relaxed(&task->state) != TASK_LIVE || load_relaxed(&task->gen) != gen ||
	    load_relaxed(&memcg->state) != MEMCG_ONLINE)
		err = -ENODEV;
	else
		task_attach_locked(task, memcg);
	tree_unlock();
	return err;
}

void task_set_name(struct task *task, const char *name, size_t len)
{
	if (len >= sizeof(task->name)) {
		len = sizeof(task->name) - 1;
		while (len && ((unsigned char)name[len] & 0xC0) == 0x80)
			len--; /* not inside a character */
	}
	memcpy(task->name, name, len);
	memset(task->name + len, 0, sizeof(task->name) - len);
	task->name_len = (uint32_t)len;
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
 * tests/core/test_task.c stages the first two step by step; tests/core/stress.c.
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
