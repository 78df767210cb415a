#include "task.h"

#include <errno.h>
#include <string.h>

static uint32_t free_head;
static uint64_t next_id = 1;
static uint64_t requests_seen; /* of region.header->requests */

static void task_link(struct task *task, struct mem_cgroup *memcg)
{
	uint32_t index = task_index(task);

	task->prev = 0;
	task->next = memcg->task_head;
	if (task->next)
		region.tasks[task->next].prev = index;
	memcg->task_head = index;
	if (!task->is_native)
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
	if (!task->is_native)
		add_single_writer(&memcg->nr_tasks, (uint32_t)-1);
}

/* In `memcg`, or in the group that another task is in. */
static struct task *alloc_task(struct mem_cgroup *memcg, const struct task *beside, int *err)
{
	struct task *task = NULL;
	uint32_t index;

	tree_lock();
	if (beside)
		memcg = memcg_from_id(load_relaxed(&beside->memcg));
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
	task->is_native = beside != NULL;
	store_relaxed(&task->request, 0);
	task_link(task, memcg);
	reference_init(task, memcg);
	store_release(&task->state, TASK_LIVE);
out:
	tree_unlock();
	return task;
}

struct task *task_alloc(struct mem_cgroup *memcg, int *err)
{
	return alloc_task(memcg, NULL, err);
}

struct task *task_alloc_native(const struct task *creator)
{
	int err;

	return alloc_task(NULL, creator, &err);
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

/*
 * A request is one word, so that it is seen whole or not at all, whoever writes
 * at the same time: the group's id, and what can be had of the generations of
 * group and task.  It is served late, if the task is idle; a generation that
 * has come round again by then, after 2^22 other users of one record, is taken
 * for the one that was meant.
 */
#define REQUEST_ID_BITS 20
#define REQUEST_GEN_BITS 22
#define REQUEST_GEN_MASK ((1u << REQUEST_GEN_BITS) - 1)

_Static_assert(MEMCG_MAX <= 1u << REQUEST_ID_BITS, "a request has room for every group's id");

static uint64_t request_word(uint32_t gen, uint32_t memcg, uint32_t memcg_gen)
{
	return (uint64_t)(gen & REQUEST_GEN_MASK) << (REQUEST_ID_BITS + REQUEST_GEN_BITS) |
	       (uint64_t)(memcg_gen & REQUEST_GEN_MASK) << REQUEST_ID_BITS | memcg;
}

/*
 * The request first, then the flag: who clears the flag (a successful
 * compare-and-exchange in current_objcg_update) has read ours or one after it,
 * and so finds the request when it looks, after that.  Should our flag be
 * overwritten by a move, that has set its own.
 */
void task_request_move(struct region_header *header, struct task *task, uint32_t gen,
		       uint32_t memcg, uint32_t memcg_gen)
{
	xchg_acq_rel(&task->request, request_word(gen, memcg, memcg_gen));
	fetch_or_acq_rel(&task->word, (uint64_t)OBJCG_UPDATE);
	fetch_add_seq_cst(&header->requests, 1);
}

static bool serve_locked(struct task *task)
{
	struct mem_cgroup *memcg;
	uint64_t request;
	uint32_t id;

	if (!load_relaxed(&task->request))
		return false;
	request = xchg_acq_rel(&task->request, 0);
	id = request & ((1u << REQUEST_ID_BITS) - 1);
	/* What other processes write is not to be trusted. */
	if (id == 0 || id >= section_used(SECTION_MEMCG) ||
	    !(load_relaxed(&region.header->flags) & REGION_MIGRATION))
		return false;
	memcg = memcg_from_id(id);
	if (load_relaxed(&task->state) != TASK_LIVE ||
	    load_relaxed(&memcg->state) != MEMCG_ONLINE ||
	    request != request_word(load_relaxed(&task->gen), id, load_relaxed(&memcg->gen)))
		return false;
	task_attach_locked(task, memcg);
	return true;
}

bool task_serve_request(struct task *task)
{
	bool moved;

	tree_lock();
	moved = serve_locked(task);
	tree_unlock();
	return moved;
}

void task_serve_requests_locked(void)
{
	uint64_t requests = load_acquire(&region.header->requests);
	uint32_t used;

	if (likely(requests == requests_seen))
		return;
	/* One that comes while we look is served now, or makes the next look necessary. */
	requests_seen = requests;
	used = section_used(SECTION_TASK);
	for (uint32_t i = TASK_ROOT; i < used; i++)
		serve_locked(&region.tasks[i]);
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
