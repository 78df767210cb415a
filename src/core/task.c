#include "task.h"

#include <errno.h>
#include <string.h>

static uint32_t free_head;
static uint64_t next_id = 1;

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
	reference_init(task, memcg);
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
	reference_flag(task, memcg_from_id(MEMCG_ROOT));
	store_release(&task->state, TASK_FREE);
	task->next = free_head;
	free_head = task_index(task);
	tree_unlock();
}

void task_attach_locked(struct task *task, struct mem_cgroup *memcg)
{
	task_unlink(task);
	task_link(task, memcg);
	reference_flag(task, memcg);
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
